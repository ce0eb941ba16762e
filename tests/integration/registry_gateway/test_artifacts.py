"""Typed artifacts: validated before a push and after a pull, by lns or by the registry."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from services.core import errors
from services.core.artifacts.families import FAMILIES, Family
from services.core.artifacts.schemas import schema_json
from services.core.descriptor import OCI_LAYER_GZIP, OCI_MANIFEST
from services.core.digest import Digest
from tests.support.authority_front import TYPES_PATH, AuthorityFront
from tests.support.fault_proxy import FaultProxy, Kind, Match
from tests.support.faults import Answer, GiantBody, deep_json
from tests.support.gateway import RunningGateway
from tests.support.images import Built, manifest_in, random_bytes, upload
from tests.support.registry import RunningRegistry

REF = {"ref": "registry.example/agents/a"}
SPECS: dict[str, dict[str, Any]] = {
    "agent": {"image": "debian:12", "command": ["/bin/true"]},
    "bundle": {"components": {"agents": [REF]}},
    "sandbox": {"resources": {"cpu": 2, "memory": "3g"}},
    "policy": {"network": {"defaultVerdict": "deny"}},
    "integration": {
        "authKind": "credential",
        "routes": [{"match": "api.example.com"}],
        "credential": {
            "envVar": "TOKEN",
            "placeholder": "placeholder-token",
            "injections": [{"kind": "bearer_header", "domain": "api.example.com"}],
        },
    },
    "workflow": {"steps": [{"name": "first"}]},
    "model": {"provider": "p", "model": "m"},
    "tool": {"kind": "mcp", "mcp": {"transport": "stdio", "command": "/bin/tool"}},
    "knowledge": {"format": "text"},
    "fileset": {"description": "files"},
}


def document(family: str, **changes: Any) -> dict[str, Any]:
    (found,) = (one for one in FAMILIES if one.slug == family)
    made: dict[str, Any] = {
        "apiVersion": "lens.dev/v1alpha1",
        "kind": found.kind,
        "metadata": {"name": f"my-{family}"},
        "spec": SPECS[family],
    }
    if family == "fileset":
        made["mount"] = {"path": "/opt/data"}
    return made | changes


def new_path(registry: RunningRegistry, path: str = "thing") -> str:
    return registry.new_repository(path).partition("/")[2]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: one.slug)
@pytest.mark.parametrize("form", ["json", "yaml"])
async def test_every_family_goes_there_and_back(
    gateway: RunningGateway, registry: RunningRegistry, family: Family, form: str
) -> None:
    value = document(family.slug)
    text = json.dumps(value) if form == "json" else yaml.safe_dump(value)
    path = new_path(registry, f"{family.path_segment}/x")
    reference = f"{registry.host}/{path}:v"

    pushed = await gateway.call("PushArtifact", reference=reference, document=text.encode())
    pulled = await gateway.pull(reference)

    assert (pushed.family, pulled.family) == (family.slug, family.slug)
    assert json.loads(pulled.document) == value
    manifest = json.loads(manifest_in(registry.url, path, "v"))
    assert manifest["artifactType"] == f"application/vnd.lens.{family.slug}.v1+json"
    assert manifest["config"]["mediaType"] == f"application/vnd.lens.{family.slug}.config.v1+json"
    assert manifest["config"]["digest"] == Digest.of(pulled.document)
    inspected = await gateway.call("InspectManifest", reference=reference)
    assert (inspected.family, inspected.config) == (family.slug, pulled.document)
    (kept,) = (await gateway.call("ListStoredImages")).images
    assert (kept.reference, kept.family) == (reference, family.slug)


async def test_the_same_document_is_the_same_artifact_however_it_is_written(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    value = document("model")
    forms = [json.dumps(value), json.dumps(value, indent=4), yaml.safe_dump(value, sort_keys=True)]

    digests = {
        (
            await gateway.call(
                "PushArtifact",
                reference=registry.new_repository("models/m"),
                document=form.encode(),
                annotations={"b": "1", "a": "2"},
            )
        ).descriptor.digest
        for form in forms
    }

    assert len(digests) == 1


async def test_content_is_pushed_as_layers_of_the_store(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    data = random_bytes(100_000, time.time_ns())
    layer = {"media_type": OCI_LAYER_GZIP, "digest": await gateway.write(data)}
    path = new_path(registry, "filesets/f")

    await gateway.call(
        "PushArtifact",
        reference=f"{registry.host}/{path}:v",
        document=json.dumps(document("fileset")).encode(),
        layers=[layer | {"size_bytes": len(data)}],
        annotations={"org.opencontainers.image.title": "f"},
    )

    manifest = json.loads(manifest_in(registry.url, path, "v"))
    assert manifest["layers"] == [
        {
            "mediaType": OCI_LAYER_GZIP,
            "digest": layer["digest"],
            "size": len(data),
            "annotations": {"org.opencontainers.image.title": "my-fileset.tar.gz"},
        }
    ]
    assert manifest["annotations"] == {"org.opencontainers.image.title": "f"}


REFUSED: list[tuple[str, dict[str, Any], type[errors.LnsError]]] = [
    ("no family in the path", {"path": "things/x"}, errors.RequestInvalid),
    ("the name is no family", {"path": "models"}, errors.RequestInvalid),
    ("an unknown family", {"family": "robot"}, errors.RequestInvalid),
    ("content of a family without content", {"layers": 1}, errors.RequestInvalid),
    ("a layer that is not in the store", {"path": "tools/t", "layers": 1}, errors.LnsError),
    ("text that is not YAML", {"document": b"a: [1"}, errors.ArtifactInvalid),
    ("nothing", {"document": b""}, errors.ArtifactInvalid),
    ("a list", {"document": b"[]"}, errors.ArtifactInvalid),
    ("too large", {"document": b" " * (1 << 20) + b"{}"}, errors.ArtifactInvalid),
    ("another kind", {"document": json.dumps(document("tool")).encode()}, errors.ArtifactInvalid),
    ("annotations without end", {"annotations": {"a": "x" * 300_000}}, errors.RequestInvalid),
]


@pytest.mark.parametrize(("name", "fields", "expected"), REFUSED, ids=[row[0] for row in REFUSED])
async def test_what_cannot_be_an_artifact_is_refused_before_the_registry_is_asked(
    gateway: RunningGateway,
    proxy: FaultProxy,
    name: str,
    fields: dict[str, Any],
    expected: type[errors.LnsError],
) -> None:
    absent = {"media_type": "a/b", "digest": Digest.of(b"absent"), "size_bytes": 6}
    request = {
        "reference": f"{proxy.host}/t/{fields.get('path', 'models/m')}",
        "family": fields.get("family", ""),
        "document": fields.get("document", json.dumps(document("model")).encode()),
        "layers": [absent] * fields.get("layers", 0),
        "annotations": fields.get("annotations", {}),
    }

    with pytest.raises(expected):
        await gateway.call("PushArtifact", **request)

    assert proxy.count(Match(method="PUT")) == 0
    assert (await gateway.call("ListStoredImages")).images == []


async def test_a_family_that_is_given_wins_over_the_path(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    answer = await gateway.call(
        "PushArtifact",
        reference=registry.new_repository("models/m"),
        family="knowledge",
        document=json.dumps(document("knowledge")).encode(),
    )

    assert answer.family == "knowledge"


async def test_every_violation_is_named_by_its_json_path(gateway: RunningGateway) -> None:
    broken = document("agent", spec={"image": 7, "ports": [{"host": "x"}], "unknown": 1})
    del broken["metadata"]["name"]

    with pytest.raises(errors.ArtifactInvalid) as caught:
        await gateway.call(
            "PushArtifact",
            reference="127.0.0.1:1/agents/a",
            document=json.dumps(broken).encode(),
        )
    with pytest.raises(errors.ArtifactInvalid) as validated:
        await gateway.call("ValidateArtifact", document=json.dumps(broken).encode())

    subjects = {violation.subject for violation in caught.value.violations}
    assert {"$.spec.image", "$.spec.unknown"} <= subjects
    assert any(subject.startswith("$.metadata") for subject in subjects)
    assert any(subject.startswith("$.spec.ports[0]") for subject in subjects)
    assert validated.value.violations == caught.value.violations


def raw_artifact(config: bytes, **changes: Any) -> Built:
    """An artifact whose config nobody validated."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.lens.model.v1+json",
        "config": {
            "mediaType": "application/vnd.lens.model.config.v1+json",
            "digest": Digest.of(config),
            "size": len(config),
        },
        "layers": [],
    } | changes
    return Built(
        raw=json.dumps(manifest).encode(),
        media_type=OCI_MANIFEST,
        blobs={Digest.of(config): config},
    )


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        (raw_artifact(b"{}"), errors.ArtifactInvalid),
        (raw_artifact(b"not json: ["), errors.ArtifactInvalid),
        (raw_artifact(json.dumps(document("tool")).encode()), errors.ArtifactInvalid),
        (raw_artifact(b"[" * 10_000), errors.ArtifactInvalid),
        (
            raw_artifact(b"{}", artifactType="application/vnd.lens.robot.v1+json"),
            errors.ArtifactTypeUnsupported,
        ),
        (
            raw_artifact(b"{}", artifactType="application/vnd.lens.tool.v1+json"),
            errors.ArtifactTypeUnsupported,
        ),
    ],
    ids=["empty", "no json", "another kind", "deep", "unknown family", "two families"],
)
async def test_an_artifact_that_is_not_valid_is_refused_after_its_pull(
    gateway: RunningGateway,
    registry: RunningRegistry,
    built: Built,
    expected: type[errors.LnsError],
) -> None:
    path = new_path(registry)
    upload(registry.url, path, built, "v")

    with pytest.raises(expected):
        await gateway.pull(f"{registry.host}/{path}:v")

    assert (await gateway.call("ListStoredImages")).images == []
    described = await gateway.call("InspectManifest", reference=f"{registry.host}/{path}:v")
    assert described.manifest == built.raw


async def test_what_a_reference_is_comes_from_its_manifest_and_not_from_its_path(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    path = new_path(registry, "agents/looks-like-one")
    upload(registry.url, path, raw_artifact(json.dumps(document("model")).encode()), "v")

    assert (await gateway.pull(f"{registry.host}/{path}:v")).family == "model"


# Types


async def test_the_families_are_listed_with_their_schemas(gateway: RunningGateway) -> None:
    answer = await gateway.call("ListArtifactTypes")

    assert answer.authority == ""
    assert [one.slug for one in answer.types] == [family.slug for family in FAMILIES]
    for one, family in zip(answer.types, FAMILIES, strict=True):
        assert json.loads(one.schema_json) == json.loads(schema_json(family))
        assert one.kind == family.kind
        assert one.path_segment == family.path_segment
        assert one.application_layer == family.is_mountable
        assert one.default_mount_path == family.default_mount


@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: one.slug)
async def test_a_document_is_checked_without_being_pushed(
    gateway: RunningGateway, family: Family
) -> None:
    text = json.dumps(document(family.slug)).encode()

    for slug in ("", family.slug):
        answer = await gateway.call("ValidateArtifact", document=text, family=slug)
        assert (answer.family, answer.name) == (family.slug, f"my-{family.slug}")


# Registries that are the authority


@pytest.fixture
def authority(registry: RunningRegistry) -> Iterator[AuthorityFront]:
    with AuthorityFront(registry.host) as front:
        yield front


def stricter(front: AuthorityFront) -> None:
    """Has the registry want models to be of one provider."""
    (family,) = (one for one in FAMILIES if one.slug == "model")
    schema = json.loads(schema_json(family))
    front.replace_schema(
        "model",
        {"allOf": [schema, {"properties": {"spec": {"properties": {"provider": {"const": "x"}}}}}]},
    )


def asked(front: AuthorityFront) -> list[int | None]:
    return [one.status for one in front.requests if one.path == TYPES_PATH]


async def test_a_registry_with_types_of_its_own_decides_about_documents(
    gateway: RunningGateway, authority: AuthorityFront
) -> None:
    stricter(authority)
    text = json.dumps(document("model")).encode()

    listed = await gateway.call("ListArtifactTypes", registry=authority.host)
    assert listed.authority == authority.host
    assert [one.slug for one in listed.types] == [family.slug for family in FAMILIES]

    await gateway.call("ValidateArtifact", document=text)
    for name, fields in (
        ("ValidateArtifact", {"registry": authority.host}),
        ("PushArtifact", {"reference": f"{authority.host}/t/models/m"}),
    ):
        with pytest.raises(errors.ArtifactInvalid) as caught:
            await gateway.call(name, document=text, **fields)
        assert [one.subject for one in caught.value.violations] == ["$.spec.provider"]
    assert [one for one in authority.requests if one.method == "PUT"] == []
    assert asked(authority) == [200], "asked for once"


async def test_a_refusal_of_the_registry_itself_is_shown_violation_by_violation(
    gateway: RunningGateway, authority: AuthorityFront
) -> None:
    text = json.dumps(document("model")).encode()
    await gateway.call("ListArtifactTypes", registry=authority.host)
    stricter(authority)  # the gateway still believes in the schemas of before

    with pytest.raises(errors.ArtifactInvalid) as caught:
        await gateway.call(
            "PushArtifact", reference=f"{authority.host}/t{time.time_ns()}/models/m", document=text
        )

    assert [one.subject for one in caught.value.violations] == ["$.spec.provider"]
    assert authority.host in caught.value.message
    assert (await gateway.call("ListStoredImages")).images == []


@pytest.mark.parametrize(
    "fault",
    [
        Answer(status=404),
        Answer(status=401),
        Answer(status=500),
        Answer(status=200, body=b"<html>"),
        Answer(status=200, body=b'{"types": {}}'),
        Answer(status=200, body=b'{"types": [{"slug": "model"}]}'),
        Answer(status=200, body=b'{"types": [{"slug": "model", "schema": {"type": 7}}]}'),
        GiantBody(),
        deep_json(),
    ],
    ids=str,
)
async def test_a_registry_without_usable_types_is_no_authority(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy, fault: Any
) -> None:
    proxy.script(Match(kind=Kind.TYPES), fault)

    answer = await gateway.call("ListArtifactTypes", registry=proxy.host)
    await gateway.call(
        "PushArtifact",
        reference=f"{proxy.host}/{new_path(registry, 'models/m')}",
        document=json.dumps(document("model")).encode(),
    )

    assert answer.authority == ""
    assert len(answer.types) == len(FAMILIES)
