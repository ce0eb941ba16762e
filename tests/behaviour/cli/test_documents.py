"""Documents of artifacts on the command line: starters, checks, locks."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml
from lns.registry.v1 import registry_service_pb2 as pb
from lns.resolver.v1 import resolver_service_pb2 as resolver_pb
from lns.types.v1 import descriptor_pb2, usage_pb2

from services.core.artifacts.documents import parse_artifact
from services.core.artifacts.families import FAMILIES, SLUGS
from tests.behaviour.cli.conftest import Client
from tests.support.scripted_pulls import DIGEST, MANIFEST, OTHER, pulled
from tests.support.scripted_services import ScriptedServices


def lockable(services: ScriptedServices) -> None:
    pulled(services)
    closure = [
        {"role": role, "requested": "r/x:1", "repository": "r.example/x", "manifest": manifest}
        for role, manifest in (
            ("index", descriptor_pb2.Descriptor(digest=OTHER)),
            ("image", MANIFEST),
        )
    ]
    services["Lock"] = resolver_pb.LockResponse(lock=b"version: 1\n", closure=closure)
    services["AcquireLease"] = pb.AcquireLeaseResponse()


def test_what_a_lock_names_is_pulled_and_kept(services: ScriptedServices, lns: Client) -> None:
    lockable(services)

    assert lns("lock", "r/x:1").out == "version: 1\n"

    assert [one.reference for one in services.asked("Pull")] == [f"r.example/x@{DIGEST}"]
    (lease,) = services.asked("AcquireLease")
    assert sorted(lease.digests) == [DIGEST, OTHER]
    assert lease.holder == "lock of r/x:1"
    assert lease.lease_id == "lock " + hashlib.sha256(b"version: 1\n").hexdigest()[:12]


def test_what_is_kept_for_locks_is_listed_and_given_up(
    services: ScriptedServices, lns: Client
) -> None:
    services["ListLeases"] = pb.ListLeasesResponse(
        leases=[usage_pb2.Lease(lease_id="lock abc123", holder="lock of r/x:1", digests=[DIGEST])]
    )
    services["ReleaseLease"] = pb.ReleaseLeaseResponse()

    assert "abc123   r/x:1       1" in lns("lock", "ls").out
    assert lns("lock", "rm", "abc1").out == "abc123\n"
    assert lns("lock", "rm", "r/x:1").out == "abc123\n"
    assert "lns lock ls" in lns("lock", "rm", "zzz").err
    assert [one.lease_id for one in services.asked("ReleaseLease")] == ["lock abc123"] * 2


@pytest.mark.parametrize("word", ["agent", "Agent", "agents", "AGENTS"])
def test_a_starter_is_asked_for_by_any_name_of_its_family(
    lns: Client, tmp_path: Path, word: str
) -> None:
    result = lns("init", word)

    assert result.out == "agent.yaml\n"
    assert "lns run ./agent.yaml" in result.err
    assert parse_artifact((tmp_path / "agent.yaml").read_bytes()).family.slug == "agent"


def image_of(path: Path) -> str:
    return str(yaml.safe_load(path.read_text())["spec"]["image"])


def test_the_image_of_an_agents_starter_is_one_that_the_user_has(
    lns: Client, tmp_path: Path
) -> None:
    result = lns("init", "agent")
    assert f"its image is {image_of(tmp_path / 'agent.yaml')}; --image names one" in result.err

    lns("config", "set", "starter-image", "localhost:5055/demo/images/surveyor:1")
    lns("init", "agent", "-o", "mine.yaml")
    lns("init", "agent", "-o", "other.yaml", "--image", "r.example/base@sha256:" + "1a" * 32)

    assert image_of(tmp_path / "mine.yaml") == "localhost:5055/demo/images/surveyor:1"
    assert image_of(tmp_path / "other.yaml") == "r.example/base@sha256:" + "1a" * 32


@pytest.mark.parametrize(
    ("family", "image"),
    [("model", "r.example/i:1"), ("agent", "https://r.example/i"), ("agent", "A B")],
)
def test_an_image_that_a_starter_cannot_have_is_refused(
    lns: Client, tmp_path: Path, family: str, image: str
) -> None:
    assert lns("init", family, "--image", image).code == 1
    assert list(tmp_path.glob("*.yaml")) == []


def test_a_starter_with_content_brings_its_folder(lns: Client, tmp_path: Path) -> None:
    result = lns("init", "fileset", "-o", "notes.yaml")

    assert (tmp_path / "notes").is_dir()
    assert "lns push ./notes.yaml localhost:5000/filesets/notes:1 --content notes" in result.err


def test_families_are_listed_and_their_schemas_printed(
    services: ScriptedServices, lns: Client
) -> None:
    services["ListArtifactTypes"] = pb.ListArtifactTypesResponse(
        types=[pb.ArtifactType(slug="model", kind="Model", schema_json='{"a": 1}\n')]
    )

    assert "model    Model" in lns("types").out
    assert json.loads(lns("types", "model").out) == {"a": 1}
    assert ", ".join(SLUGS) in lns("types", "nonsense").err


@pytest.mark.parametrize("slug", SLUGS)
def test_a_starter_is_valid_and_replaces_nothing(lns: Client, tmp_path: Path, slug: str) -> None:
    family = next(one for one in FAMILIES if one.slug == slug)

    assert lns("init", slug).out == f"{slug}.yaml\n"
    text = (tmp_path / f"{slug}.yaml").read_bytes()
    assert parse_artifact(text, family).family is family
    assert lns("init", slug).code == 1
    assert lns("init", slug, "--force").code == 0
    assert lns("init", slug, "-o", "-").out.encode() == text


def test_a_document_is_validated_without_pushing(
    services: ScriptedServices, lns: Client, tmp_path: Path
) -> None:
    (tmp_path / "m.yaml").write_text("x")
    services["ValidateArtifact"] = pb.ValidateArtifactResponse(family="model", name="m")

    assert lns("validate", "m.yaml").out == "m.yaml: model m is valid\n"
    assert services.asked("PushArtifact") == []


@pytest.mark.parametrize("output", [[], ["-o", "-"]])
def test_a_lock_goes_to_standard_output(
    services: ScriptedServices, lns: Client, output: list[str]
) -> None:
    services["Lock"] = resolver_pb.LockResponse(lock=b"version: 1\n")
    services["AcquireLease"] = pb.AcquireLeaseResponse()

    assert lns("lock", "r/x:1", *output).out == "version: 1\n"
