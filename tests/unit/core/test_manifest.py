"""Manifests are parsed from hostile bytes; what lns relies on is checked, the bytes are kept."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.descriptor import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    OCI_IMAGE_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
)
from services.core.digest import Digest
from services.core.errors import LimitExceeded, LnsError, PlatformUnsupported, RegistryProtocol
from services.core.manifest import (
    MAX_INDEX_ENTRIES,
    MAX_LAYERS,
    MAX_MANIFEST_BYTES,
    Index,
    Manifest,
    parse_json_object,
    parse_manifest,
)
from services.core.platforms import Platform
from tests.support.outcomes import passes_or

DIGEST = Digest.of(b"x")
SHA512 = Digest.of(b"x", algorithm="sha512")
AMD64 = Platform(architecture="amd64")


def descriptor(**changes: Any) -> dict[str, Any]:
    return {"mediaType": OCI_LAYER_GZIP, "digest": DIGEST, "size": 1} | changes


def image(**changes: Any) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(mediaType=OCI_IMAGE_CONFIG, size=10),
        "layers": [descriptor(size=20), descriptor(size=30)],
    } | changes


def index(**changes: Any) -> dict[str, Any]:
    entry = descriptor(mediaType=OCI_MANIFEST)
    return {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            entry | {"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
            entry | {"platform": {"os": "linux", "architecture": "amd64"}},
        ],
    } | changes


def parse(document: dict[str, Any], media_type: str = "") -> Manifest | Index:
    return parse_manifest(json.dumps(document).encode(), media_type=media_type)


def without(document: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != key}


def test_the_descriptor_of_a_manifest_is_that_of_its_raw_bytes() -> None:
    raw = b"\n" + json.dumps(image(), indent=7).encode() + b"  "

    manifest = parse_manifest(raw, media_type=OCI_MANIFEST)

    assert manifest.raw == raw
    assert manifest.descriptor.digest == Digest.of(raw)
    assert manifest.descriptor.size == len(raw)
    assert manifest.descriptor.media_type == OCI_MANIFEST


def test_a_manifest_has_config_layers_subject_and_annotations() -> None:
    manifest = parse(image(subject=descriptor(mediaType=OCI_MANIFEST), annotations={"a": "b"}))

    assert isinstance(manifest, Manifest)
    assert manifest.is_image
    assert [layer.size for layer in manifest.layers] == [20, 30]
    assert manifest.total_bytes == 60
    assert manifest.subject is not None
    assert manifest.annotations == {"a": "b"}


def test_the_artifact_type_falls_back_to_that_of_the_config() -> None:
    own = parse(image(artifactType="application/vnd.lens.agent.v1+json"))
    fallen_back = parse(image(config=descriptor(mediaType="application/vnd.x+json")))

    assert isinstance(own, Manifest)
    assert isinstance(fallen_back, Manifest)
    assert own.artifact_type == "application/vnd.lens.agent.v1+json"
    assert (fallen_back.artifact_type, fallen_back.is_image) == ("application/vnd.x+json", False)


@pytest.mark.parametrize(
    ("document", "media_type", "expected"),
    [
        (image(), OCI_MANIFEST, OCI_MANIFEST),
        (image(), "", OCI_MANIFEST),
        (image(), "application/octet-stream", OCI_MANIFEST),
        (image(mediaType=DOCKER_MANIFEST), DOCKER_MANIFEST, DOCKER_MANIFEST),
        (without(image(), "mediaType"), "", OCI_MANIFEST),
        (without(image(), "mediaType"), OCI_MANIFEST, OCI_MANIFEST),
        (image(mediaType=None), DOCKER_MANIFEST, DOCKER_MANIFEST),
        (index(), OCI_INDEX, OCI_INDEX),
        (index(mediaType=DOCKER_INDEX), "", DOCKER_INDEX),
        (without(index(), "mediaType"), "", OCI_INDEX),
        (without(index(), "mediaType"), OCI_INDEX, OCI_INDEX),
    ],
)
def test_what_a_manifest_is_comes_from_itself_or_from_who_sent_it(
    document: dict[str, Any], media_type: str, expected: str
) -> None:
    assert parse(document, media_type).descriptor.media_type == expected


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        (image(), OCI_INDEX),
        (image(), DOCKER_MANIFEST),
        (index(), OCI_MANIFEST),
        (without(image(), "mediaType"), "text/html"),
        (image(mediaType="application/vnd.docker.distribution.manifest.v1+prettyjws"), ""),
        (image(mediaType=7), ""),
        (image(mediaType=["a"]), ""),
        (image(mediaType={"a": 1}), OCI_MANIFEST),
        ({}, ""),
        # Bytes that are an index to one reader and an image to another (CVE-2021-41190).
        (image() | {"manifests": []}, ""),
        (without(image() | {"manifests": []}, "mediaType"), OCI_MANIFEST),
        (without(image() | {"manifests": []}, "mediaType"), OCI_INDEX),
        (index(config=descriptor()), ""),
        (index(layers=[]), ""),
        (index(fsLayers=[]), ""),
        (image(fsLayers=[]), ""),
        (index(mediaType=OCI_MANIFEST), ""),
        (image(mediaType=OCI_INDEX), ""),
    ],
)
def test_nobody_reads_the_same_bytes_as_two_things(
    document: dict[str, Any], media_type: str
) -> None:
    with pytest.raises(RegistryProtocol):
        parse(document, media_type)


HOSTILE = [
    b"",
    b"null",
    b"[]",
    b"7",
    b'"x"',
    b"{",
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b'{"a":1,"a":2}',
    b'{"a":NaN}',
    b'{"a":-Infinity}',
    b"[" * 200_000,
    b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    b'{"a":' * 40 + b"1" + b"}" * 40,
    b"<html>not here</html>",
    b'{"schemaVersion":2}',
    b'{"a":' + b"9" * 10_000 + b"}",
]


@pytest.mark.parametrize("raw", HOSTILE, ids=lambda raw: repr(raw[:20]))
def test_what_is_no_manifest_is_refused_with_a_short_typed_error(raw: bytes) -> None:
    with pytest.raises(RegistryProtocol) as caught:
        parse_manifest(raw)

    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    "change",
    [
        {"config": None},
        {"config": []},
        {"config": "x"},
        {"layers": {}},
        {"layers": ["x"]},
        {"layers": [descriptor(size=-1)]},
        {"layers": [descriptor(size=1.5)]},
        {"layers": [descriptor(size="1")]},
        {"layers": [descriptor(size=True)]},
        {"layers": [descriptor(size=1 << 60)]},
        {"layers": [descriptor(digest="sha256:zz")]},
        {"layers": [descriptor(digest="../../etc/passwd")]},
        {"layers": [descriptor(digest=None)]},
        {"layers": [descriptor(mediaType=5)]},
        {"layers": [descriptor(annotations={"a": 1})]},
        {"layers": [descriptor(annotations=["a"])]},
        {"layers": [descriptor(platform="linux")]},
        {"layers": [descriptor(platform={"os": 1})]},
        {"layers": [descriptor(size=None)]},
        {"annotations": "x"},
        {"annotations": []},
        {"artifactType": 1},
        {"subject": "x"},
        {"subject": descriptor(size=-1)},
    ],
    ids=str,
)
def test_each_part_of_a_manifest_that_is_wrong_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(RegistryProtocol):
        parse(image(**change))


@pytest.mark.parametrize(
    "document",
    [
        image(layers=None),
        without(image(), "layers"),
        image(layers=[], annotations=None, artifactType=None, subject=None),
        image(layers=[], annotations={"a": None}),
        image(layers=None, config=descriptor(mediaType=OCI_IMAGE_CONFIG, platform=None)),
        image(layers=None, config=descriptor(mediaType=OCI_IMAGE_CONFIG, annotations=None)),
    ],
)
def test_null_and_absent_are_empty_in_the_manifest_of_an_image(document: dict[str, Any]) -> None:
    """What Go's JSON makes of `FROM scratch`, and reads from others."""
    manifest = parse(document)

    assert isinstance(manifest, Manifest)
    assert manifest.layers == ()
    assert set(manifest.annotations.values()) <= {""}


def test_an_artifact_of_ours_is_read_strictly() -> None:
    own = descriptor(mediaType="application/vnd.lens.agent.config.v1+json")

    assert isinstance(parse(image(config=own, layers=[])), Manifest)
    for document in (image(config=own, layers=None), without(image(config=own), "layers")):
        with pytest.raises(RegistryProtocol):
            parse(document)


@pytest.mark.parametrize("manifests", [None, []])
def test_an_index_may_be_empty(manifests: Any) -> None:
    parsed = parse(index(manifests=manifests))

    assert isinstance(parsed, Index)
    assert parsed.manifests == ()


def test_a_manifest_is_known_by_the_digest_it_was_asked_for() -> None:
    raw = json.dumps(image(layers=[descriptor(digest=SHA512)])).encode()
    digest = Digest.of(raw, algorithm="sha512")

    manifest = parse_manifest(raw, digest=digest)

    assert isinstance(manifest, Manifest)
    assert manifest.descriptor.digest == digest
    assert manifest.layers[0].digest == SHA512


@pytest.mark.parametrize(
    "raw",
    [
        b" " * (MAX_MANIFEST_BYTES + 1),
        json.dumps(image(layers=[descriptor()] * (MAX_LAYERS + 1))).encode(),
        json.dumps(index(manifests=[descriptor()] * (MAX_INDEX_ENTRIES + 1))).encode(),
    ],
    ids=["bytes", "layers", "entries"],
)
def test_what_is_larger_than_lns_accepts_is_refused_as_such(raw: bytes) -> None:
    with pytest.raises(LimitExceeded):
        parse_manifest(raw)


def test_the_largest_accepted_manifest_parses() -> None:
    manifest = parse(image(layers=[descriptor()] * MAX_LAYERS))

    assert isinstance(manifest, Manifest)
    assert len(manifest.layers) == MAX_LAYERS


def test_an_index_offers_platforms_and_selects_by_them() -> None:
    parsed = parse(index())

    assert isinstance(parsed, Index)
    assert [str(one) for one in parsed.platforms] == ["linux/arm64/v8", "linux/amd64"]
    assert parsed.select(AMD64) == parsed.manifests[1]
    assert parsed.select(Platform.parse("arm64")) == parsed.manifests[0]


def entry_for(os: str, architecture: str, variant: str = "", **changes: Any) -> dict[str, Any]:
    platform = {"os": os, "architecture": architecture, "variant": variant}
    return descriptor(mediaType=OCI_MANIFEST, platform=platform) | changes


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_variants_the_best_that_the_machine_executes_is_selected(order: int) -> None:
    variants = ["v4", "v3", "v2", ""]
    entries = [entry_for("linux", "amd64", one, size=n) for n, one in enumerate(variants)]
    parsed = parse(index(manifests=entries[::order]))

    assert isinstance(parsed, Index)
    for machine, size in [("v4", 0), ("v3", 1), ("v2", 2), ("", 3)]:
        platform = Platform(architecture="amd64", variant=machine)
        assert parsed.select(platform).size == size


@pytest.mark.parametrize(
    ("os", "architecture"), [("linux", "x86_64"), ("Linux", "AMD64"), ("", "amd64")]
)
def test_the_platform_of_an_entry_may_be_spelled_otherwise(os: str, architecture: str) -> None:
    parsed = parse(index(manifests=[entry_for(os, architecture)]))

    assert isinstance(parsed, Index)
    assert parsed.select(AMD64) == parsed.manifests[0]


def test_an_entry_without_a_platform_is_selected_by_what_was_found_of_it() -> None:
    attestation = {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    parsed = parse(
        index(
            manifests=[
                entry_for("unknown", "unknown") | attestation,
                descriptor(mediaType=OCI_MANIFEST) | attestation,
                descriptor(mediaType=OCI_MANIFEST, artifactType="application/x", size=2),
                descriptor(mediaType=OCI_MANIFEST, size=3),
                entry_for("linux", "", size=4),
                entry_for("linux", "arm64"),
            ]
        )
    )

    assert isinstance(parsed, Index)
    assert [one.size for one in parsed.unlabelled] == [3, 4]
    assert parsed.best(AMD64) is None
    riscv = Platform(architecture="riscv64")
    assert parsed.select(AMD64, [riscv, AMD64]).size == 4
    with pytest.raises(PlatformUnsupported) as caught:
        parsed.select(AMD64, [riscv, riscv])
    assert "the index offers linux/arm64, linux/riscv64" in caught.value.message


def test_an_empty_index_has_nothing_for_anyone() -> None:
    parsed = parse(index(manifests=[]))

    assert isinstance(parsed, Index)
    with pytest.raises(PlatformUnsupported, match="offers none"):
        parsed.select(AMD64)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
members = st.sampled_from(
    ["mediaType", "config", "layers", "manifests", "subject", "annotations", "artifactType"]
)


@given(base=st.sampled_from([image(), index()]), changes=st.dictionaries(members, json_values))
def test_whatever_stands_in_a_member_it_parses_or_is_refused_with_a_typed_error(
    base: dict[str, Any], changes: dict[str, Any]
) -> None:
    raw = json.dumps(base | changes).encode()
    try:
        parsed = parse_manifest(raw)
    except LnsError:
        return
    assert parsed.descriptor.digest == Digest.of(raw)


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_refused_with_a_typed_error(raw: bytes) -> None:
    with passes_or(RegistryProtocol, LimitExceeded):
        parse_manifest(raw)


def test_json_objects_name_what_they_should_have_been() -> None:
    with pytest.raises(RegistryProtocol, match=r"^config of x "):
        parse_json_object(b"[]", what="config of x")
