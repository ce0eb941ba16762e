"""Images, agents and bundles of a real registry, through the real gateway and the real server."""

from lns.resolver.v1 import resolver_service_pb2 as pb
import pytest

from services.core.artifacts import families
from services.core.errors import ManifestUnknown, PlanInvalid
from tests.integration.resolver.conftest import World
from tests.support.documents import document
from tests.support.images import build_image, build_index, tar_layer


async def bundle(world: World) -> str:
    """Puts a bundle of everything into the registry; returns its reference."""
    layer, _ = tar_layer({"hello.txt": b"hello"})
    image = world.put_image("images/base:1", build_index(("amd64", build_image(layer))))
    await world.push(
        "agents/hello:1",
        families.AGENT,
        document(families.AGENT, "hello", {"image": image, "command": "echo hello"}),
    )
    sandbox = {"resources": {"cpu": "1500m", "memory": "2Gi"}}
    await world.push(
        "sandboxes/small:1", families.SANDBOX, document(families.SANDBOX, "small", sandbox)
    )
    await world.push(
        "models/m:1", families.MODEL, document(families.MODEL, "m", {"provider": "p", "model": "m"})
    )
    await world.push(
        "filesets/data:1",
        families.FILESET,
        document(families.FILESET, "data", {}, mount={"path": "/opt/data"}),
        layer=layer,
    )
    route = {"match": "api.example.com", "verdict": "allow"}
    policy = {"network": {"allowedRoutes": [route]}}
    await world.push("policies/base:1", families.POLICY, document(families.POLICY, "base", policy))
    base = world.prefix.partition("/")[2]
    components = {
        "agent": {"ref": f"{base}/agents/hello:1"},
        "sandbox": {"ref": f"{base}/sandboxes/small:1"},
        "model": {"ref": f"{base}/models/m:1"},
        "filesets": [{"ref": f"{base}/filesets/data:1"}],
        "policies": [{"ref": f"{base}/policies/base:1"}],
    }
    await world.push(
        "bundles/system:1",
        families.BUNDLE,
        document(families.BUNDLE, "system", {"components": components}),
    )
    return f"{world.prefix}/bundles/system:1"


async def test_a_bundle_resolves_to_a_pinned_plan(world: World) -> None:
    reference = await bundle(world)

    response = await world.resolver.Resolve(pb.ResolveRequest(reference=reference))

    (plan,) = response.plans
    assert plan.name == "hello"
    assert list(plan.argv) == ["/bin/sh", "-c", "echo hello"]
    assert (plan.resources.vcpus, plan.resources.cpu_millis, plan.resources.memory_mib) == (
        2,
        1500,
        2048,
    )
    assert [mount.path for mount in plan.mounts] == ["/etc/agent/model", "/opt/data"]
    assert [route.match for route in plan.policy.routes] == ["api.example.com"]
    assert [entry.role for entry in plan.closure] == [
        "bundle", "agent", "index", "image", "sandbox", "policy", "model", "fileset",
    ]  # fmt: skip
    assert plan.image.reference.endswith(f"@{plan.image.manifest.digest}")


async def test_an_image_passes_through(world: World) -> None:
    reference = world.put_image("images/plain:1", build_image(tar_layer({"a": b"a"})[0]))

    response = await world.resolver.Resolve(
        pb.ResolveRequest(reference=reference, overrides=pb.Overrides(argv=["true"]))
    )

    (plan,) = response.plans
    assert (plan.source.kind, plan.name, list(plan.argv)) == ("image", "plain", ["true"])


async def test_a_missing_reference_is_unknown(world: World) -> None:
    with pytest.raises(ManifestUnknown):
        await world.resolver.Resolve(pb.ResolveRequest(reference=f"{world.prefix}/agents/nope:1"))


async def test_every_problem_is_in_one_answer(world: World) -> None:
    base = world.prefix.partition("/")[2]
    components = {
        "agent": {"ref": f"{base}/agents/nope:1"},
        "model": {"ref": f"{base}/models/nope:1"},
    }
    await world.push(
        "bundles/bad:1",
        families.BUNDLE,
        document(families.BUNDLE, "bad", {"components": components}),
    )

    with pytest.raises(PlanInvalid) as caught:
        await world.resolver.Resolve(pb.ResolveRequest(reference=f"{world.prefix}/bundles/bad:1"))

    assert [(one.subject.split()[0], one.type) for one in caught.value.violations] == [
        ("agent", "MANIFEST_UNKNOWN"),
        ("model", "MANIFEST_UNKNOWN"),
    ]


async def test_a_locked_bundle_resolves_without_its_registry(world: World) -> None:
    reference = await bundle(world)
    before = await world.resolver.Resolve(pb.ResolveRequest(reference=reference))
    locked = await world.resolver.Lock(pb.LockRequest(reference=reference))
    lock = locked.lock.replace(world.registry.host.encode(), b"localhost:1")

    after = await world.resolver.Resolve(pb.ResolveRequest(lock=locked.lock))

    assert after.plans == before.plans
