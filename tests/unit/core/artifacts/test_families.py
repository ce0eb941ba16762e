import json

import pytest

from services.core.artifacts.families import (
    BY_SLUG,
    FAMILIES,
    SLUGS,
    Family,
    Layer,
    family_by_slug,
    family_of_manifest,
    infer_family,
)
from services.core.descriptor import OCI_EMPTY, OCI_IMAGE_CONFIG, OCI_MANIFEST
from services.core.digest import Digest
from services.core.errors import ArtifactTypeUnsupported, RequestInvalid
from services.core.manifest import Manifest, parse_manifest
from services.core.reference import Reference


def manifest(config_media_type: str, artifact_type: str = "") -> Manifest:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": config_media_type, "digest": Digest.of(b"{}"), "size": 2},
        "layers": [],
    }
    if artifact_type:
        document["artifactType"] = artifact_type
    parsed = parse_manifest(json.dumps(document).encode())
    assert isinstance(parsed, Manifest)
    return parsed


def test_the_families_are_those_of_the_contract() -> None:
    table = [
        (one.slug, one.kind, one.path_segment, one.layer.value, one.default_mount)
        for one in FAMILIES
    ]

    assert table == [
        ("agent", "Agent", "agents", "runtime", ""),
        ("bundle", "AgentSystem", "bundles", "runtime", ""),
        ("sandbox", "Sandbox", "sandboxes", "runtime", ""),
        ("policy", "Policy", "policies", "runtime", ""),
        ("integration", "Integration", "integrations", "runtime", ""),
        ("workflow", "Workflow", "workflows", "runtime", ""),
        ("model", "Model", "models", "application", "/etc/agent/model"),
        ("tool", "Tool", "tools", "application", "/etc/agent/tools/<name>"),
        ("knowledge", "Knowledge", "knowledge", "application", "/etc/agent/knowledge/<name>"),
        ("fileset", "FileSet", "filesets", "application", ""),
    ]


def test_media_types_follow_the_slug() -> None:
    agent = BY_SLUG["agent"]

    assert agent.artifact_type == "application/vnd.lens.agent.v1+json"
    assert agent.config_media_type == "application/vnd.lens.agent.config.v1+json"


def test_default_mounts_carry_the_name_of_the_artifact() -> None:
    mounts = {one.slug: one.default_mount_path("x") for one in FAMILIES if one.is_mountable}

    assert mounts == {
        "model": "/etc/agent/model",
        "tool": "/etc/agent/tools/x",
        "knowledge": "/etc/agent/knowledge/x",
        "fileset": "",
    }
    assert [one.slug for one in FAMILIES if one.layer is Layer.APPLICATION] == list(mounts)


@pytest.mark.parametrize(
    ("reference", "slug"),
    [
        ("localhost:5000/agents/hello:1", "agent"),
        ("localhost:5000/team/agents/hello", "agent"),
        ("localhost:5000/agents/tools/hello", "tool"),
        ("localhost:5000/agents/deep/er/hello", "agent"),
        ("localhost:5000/knowledge/agents", "knowledge"),
        ("reg.example/policies/a/b", "policy"),
    ],
)
def test_the_rightmost_segment_before_the_name_decides(reference: str, slug: str) -> None:
    assert infer_family(Reference.parse(reference)).slug == slug


@pytest.mark.parametrize("reference", ["localhost:5000/agents", "localhost:5000/agent/x", "agents"])
def test_without_a_segment_the_flag_and_the_ten_slugs_are_named(reference: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        infer_family(Reference.parse(reference))

    assert "--family" in caught.value.hint
    assert all(slug in caught.value.hint for slug in SLUGS)


def test_an_unknown_slug_lists_the_ten() -> None:
    with pytest.raises(RequestInvalid) as caught:
        family_by_slug("agents")

    assert all(slug in caught.value.hint for slug in SLUGS)


@pytest.mark.parametrize("family", FAMILIES, ids=SLUGS)
def test_a_manifest_is_what_its_types_say(family: Family) -> None:
    both = manifest(family.config_media_type, family.artifact_type)
    config_only = manifest(family.config_media_type)

    assert family_of_manifest(both) is family
    assert family_of_manifest(config_only) is family


@pytest.mark.parametrize("config", [OCI_IMAGE_CONFIG, OCI_EMPTY, "application/vnd.other+json"])
def test_what_is_not_of_lens_has_no_family(config: str) -> None:
    assert family_of_manifest(manifest(config)) is None


@pytest.mark.parametrize(
    ("config", "artifact_type"),
    [
        ("application/vnd.lens.model.config.v1+json", "application/vnd.lens.agent.v1+json"),
        ("application/vnd.lens.agent.config.v2+json", "application/vnd.lens.agent.v2+json"),
        ("application/vnd.lens.dream.config.v1+json", ""),
        (OCI_IMAGE_CONFIG, "application/vnd.lens.agent.v1+json"),
        ("application/vnd.lens.agent.config.v1+json", "application/vnd.other.v1+json"),
    ],
)
def test_contradicting_and_unknown_types_are_refused(config: str, artifact_type: str) -> None:
    with pytest.raises(ArtifactTypeUnsupported):
        family_of_manifest(manifest(config, artifact_type))
