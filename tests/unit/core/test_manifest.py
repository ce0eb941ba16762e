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
    Platform,
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

DIGEST = Digest.of(b"x")
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
        (image(mediaType=None), OCI_MANIFEST),
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
        {"layers": None},
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
        {"annotations": "x"},
        {"annotations": {"a": None}},
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


def test_entries_without_a_platform_are_never_selected() -> None:
    attestation = {"os": "unknown", "architecture": "unknown"}
    parsed = parse(
        index(manifests=[descriptor(platform=attestation), descriptor(), descriptor(platform=None)])
    )

    assert isinstance(parsed, Index)
    with pytest.raises(PlatformUnsupported) as caught:
        parsed.select(AMD64)
    assert "unknown/unknown" in caught.value.message


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
    try:
        parse_manifest(raw)
    except LnsError:
        return


def test_json_objects_name_what_they_should_have_been() -> None:
    with pytest.raises(RegistryProtocol, match=r"^config of x "):
        parse_json_object(b"[]", what="config of x")
