"""Every example of `docs/artifacts.md`, pushed to a registry, pulled again and resolved."""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lns.registry.v1 import registry_service_pb2 as registry_pb
from lns.resolver.v1 import resolver_service_pb2 as pb

from lns.client.content.packing import pack_content
from services.core.artifacts.documents import parse_artifact
from services.core.artifacts.families import infer_family
from services.core.descriptor import OCI_LAYER_GZIP
from services.core.reference import Reference
from tests.integration.resolver.conftest import OpenWorld, World
from tests.support.documentation import files
from tests.support.images import build_image, tar_layer, upload
from tests.support.registry import run_registry

EXAMPLES = files("artifacts.md")
WRITTEN_FOR = "localhost:5000"


@pytest.fixture
async def pushed(open_world: OpenWorld, tmp_path: Path) -> AsyncIterator[World]:
    """A registry of its own with every example at the path that the page gives it."""
    content = tmp_path / "content"
    content.mkdir()
    (content / "file.txt").write_text("content")
    with run_registry() as own:
        async with open_world(own) as world:
            image = build_image(tar_layer({"opt/hello/main.py": b"print()"})[0])
            upload(own.url, "images/python", image, "1")
            for path, text in EXAMPLES.items():
                layers = []
                if infer_family(Reference.parse(f"{own.host}/{path}")).has_content:
                    packed = io.BytesIO()
                    layer = pack_content(content, packed).descriptor
                    await world.gateway.write(packed.getvalue())
                    layers = [
                        {
                            "media_type": OCI_LAYER_GZIP,
                            "digest": layer.digest,
                            "size_bytes": layer.size,
                        }
                    ]
                await world.gateway.stub.PushArtifact(
                    registry_pb.PushArtifactRequest(
                        reference=f"{own.host}/{path}:1",
                        document=text.replace(WRITTEN_FOR, own.host).encode(),
                        layers=layers,
                    )
                )
            yield world


def host(world: World) -> str:
    return world.prefix.partition("/")[0]


async def test_every_example_comes_back_as_it_was_written(pushed: World) -> None:
    for path, text in EXAMPLES.items():
        result = await pushed.gateway.pull(f"{host(pushed)}/{path}:1")

        written = parse_artifact(text.replace(WRITTEN_FOR, host(pushed)).encode())
        assert result.family == written.family.slug
        assert json.loads(result.document) == written.document


async def test_the_bundle_resolves_to_what_the_page_says(pushed: World) -> None:
    response = await pushed.resolver.Resolve(
        pb.ResolveRequest(
            reference=f"{host(pushed)}/bundles/hello:1",
            overrides=pb.Overrides(usable_credentials=["tracker"]),
        )
    )

    (plan,) = response.plans
    size = plan.resources
    assert list(plan.argv) == ["python3", "/opt/hello/main.py"]
    assert (size.vcpus, size.cpu_millis, size.memory_mib) == (2, 1500, 2048)
    assert [(mount.path, mount.read_only) for mount in plan.mounts] == [
        ("/etc/agent/knowledge/handbook", True),
        ("/etc/agent/model", True),
        ("/etc/agent/tools/search", True),
        ("/opt/hello", False),
    ]
    assert [(route.match, route.verdict) for route in plan.policy.routes] == [
        ("api.tracker.example:443", "allow"),
        ("*.tracker.example", "deny"),
        ("192.0.2.0/24", "ask"),
        ("*.packages.example", "ask"),
    ]
    assert [one.id for one in plan.integrations] == ["tracker"]
    assert [(one.name, one.env) for one in plan.credentials] == [("tracker", "TRACKER_TOKEN")]
    assert list(plan.warnings) == []
    assert len(plan.closure) == 11


async def test_the_agent_resolves_alone_and_with_every_mountable_example(pushed: World) -> None:
    mounts = [
        f"{host(pushed)}/{path}:1"
        for path in EXAMPLES
        if infer_family(Reference.parse(f"localhost/{path}")).is_mountable
    ]

    response = await pushed.resolver.Resolve(
        pb.ResolveRequest(
            reference=f"{host(pushed)}/agents/hello:1", overrides=pb.Overrides(mounts=mounts)
        )
    )

    (plan,) = response.plans
    assert len(plan.mounts) == 4
    assert [(port.host_port, port.container_port) for port in plan.ports] == [(8080, 80)]
    assert "lns connect tracker" in plan.warnings[0]
