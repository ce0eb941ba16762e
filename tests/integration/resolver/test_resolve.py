"""Images, agents and bundles of a real registry, through the real gateway and the real server."""

import asyncio
from pathlib import Path

import pytest
from lns.resolver.v1 import resolver_service_pb2 as pb

from services.chassis.settings import PeerSettings
from services.core.artifacts import families
from services.core.errors import (
    ManifestUnknown,
    PlanInvalid,
    RegistryUnavailable,
    ServiceUnavailable,
)
from services.resolver.bootstrap import open_resolver
from services.resolver.settings import ResolverSettings
from tests.integration.resolver.conftest import OpenWorld, World
from tests.support.fault_proxy import FaultProxy, Match
from tests.support.faults import Answer, Hold
from tests.support.images import build_image, tar_layer
from tests.support.processes import serving, started
from tests.support.registry import RunningRegistry, run_registry
from tests.support.resolver import served


async def test_a_bundle_resolves_to_a_pinned_plan(world: World) -> None:
    reference = await world.put_bundle()

    response = await world.resolver.Resolve(pb.ResolveRequest(reference=reference))

    (plan,) = response.plans
    size = plan.resources
    assert plan.name == "hello"
    assert list(plan.argv) == ["/bin/sh", "-c", "echo hello"]
    assert (size.vcpus, size.cpu_millis, size.memory_mib) == (2, 1500, 2048)
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
    components = {
        "agent": {"ref": f"{world.path}/agents/nope:1"},
        "model": {"ref": f"{world.path}/models/nope:1"},
    }
    bundle = await world.push(families.BUNDLE, "bad", {"components": components})

    with pytest.raises(PlanInvalid) as caught:
        await world.resolver.Resolve(
            pb.ResolveRequest(reference=f"{world.prefix.partition('/')[0]}/{bundle}")
        )

    assert [(one.subject.split()[0], one.type) for one in caught.value.violations] == [
        ("agent", "MANIFEST_UNKNOWN"),
        ("model", "MANIFEST_UNKNOWN"),
    ]


async def test_a_component_behind_a_login_is_a_problem_of_the_plan(
    registry: RunningRegistry, open_world: OpenWorld
) -> None:
    with FaultProxy(registry.host) as proxy:
        async with open_world(registry, proxy.host) as world:
            reference = await world.put_bundle()
            login = {"WWW-Authenticate": 'Basic realm="members only"'}
            proxy.script(
                Match(repository=f"{world.path}/models/m"), Answer(status=401, headers=login)
            )

            with pytest.raises(PlanInvalid) as caught:
                await world.resolver.Resolve(pb.ResolveRequest(reference=reference))

    (violation,) = caught.value.violations
    assert violation.type == "REGISTRY_UNAUTHENTICATED"
    assert violation.subject == f"model {world.path}/models/m:1"
    assert "lns login" in violation.description


async def test_a_locked_bundle_resolves_with_the_registry_stopped(open_world: OpenWorld) -> None:
    with run_registry() as own:
        async with open_world(own) as world:
            reference = await world.put_bundle()
            plans = (await world.resolver.Resolve(pb.ResolveRequest(reference=reference))).plans
            lock = (await world.resolver.Lock(pb.LockRequest(reference=reference))).lock

            assert own.container is not None
            await asyncio.to_thread(own.container.get_wrapped_container().kill)
            with pytest.raises(RegistryUnavailable):
                await world.resolver.Resolve(pb.ResolveRequest(reference=reference))
            locked = await world.resolver.Resolve(pb.ResolveRequest(lock=lock))

    assert locked.plans == plans


async def test_a_lock_resolves_on_another_node_by_digests_alone(
    registry: RunningRegistry, open_world: OpenWorld, tmp_path: Path
) -> None:
    with FaultProxy(registry.host) as proxy:
        async with open_world(registry, proxy.host) as world:
            reference = await world.put_bundle()
            lock = (await world.resolver.Lock(pb.LockRequest(reference=reference))).lock
            plans = (await world.resolver.Resolve(pb.ResolveRequest(reference=reference))).plans
        for blob in (world.gateway.home / "blobs" / "sha256").iterdir():
            blob.unlink()
        proxy.forget()
        async with open_world(registry, proxy.host) as other:
            locked = await other.resolver.Resolve(pb.ResolveRequest(lock=lock))
            asked = {request.reference for request in proxy.requests if request.reference}

    assert locked.plans == plans
    assert all(one.startswith("sha256:") for one in asked)


async def test_a_warm_bundle_of_pinned_components_asks_the_registry_for_one_manifest(
    registry: RunningRegistry, open_world: OpenWorld
) -> None:
    with FaultProxy(registry.host) as proxy:
        async with open_world(registry, proxy.host) as world:
            await world.put_bundle()
            loose = f"{world.prefix}/bundles/system:1"
            closure = (await world.resolver.Lock(pb.LockRequest(reference=loose))).closure
            digests = {entry.role: entry.manifest.digest for entry in closure}
            image = f"{world.prefix}/images/base@{digests['index']}"
            agent = await world.push(families.AGENT, "pinned", {"image": image})
            names = {"sandbox": "sandboxes/small", "model": "models/m"}
            components = {
                role: {"ref": f"{world.path}/{path}:1", "digest": digests[role]}
                for role, path in names.items()
            }
            knowledge = [await world.push(families.KNOWLEDGE, f"k{n}", {}) for n in range(7)]
            host = world.prefix.partition("/")[0]
            pins = {}
            for path in (agent, *knowledge):
                response = await world.gateway.call("GetManifest", reference=f"{host}/{path}")
                pins[path] = response.root.digest  # type: ignore[attr-defined]  # by its name
            components["agent"] = {"ref": agent, "digest": pins[agent]}
            components["knowledge"] = [{"ref": one, "digest": pins[one]} for one in knowledge]  # type: ignore[assignment]  # a list of them
            bundle = await world.push(families.BUNDLE, "ten", {"components": components})
            request = pb.ResolveRequest(reference=f"{host}/{bundle}")
            cold = await world.resolver.Resolve(request)
            proxy.forget()

            warm = await world.resolver.Resolve(request)

            asked = [(one.method, one.repository) for one in proxy.requests]
    assert warm.plans == cold.plans
    assert asked == [("HEAD", f"{world.path}/bundles/ten")]


async def test_a_gateway_that_dies_in_the_middle_is_unavailable_and_no_half_plan(
    registry: RunningRegistry, open_world: OpenWorld, short_directory: Path, tmp_path: Path
) -> None:
    with FaultProxy(registry.host) as proxy:
        async with open_world(registry, proxy.host) as world:
            reference = await world.put_bundle()
        held = proxy.script(Match(repository=f"{world.path}/models/m"), Hold())
        home = short_directory / "h"
        peer = PeerSettings(target=f"unix:{home}/run/registry_gateway.sock")
        environment = {"LNS_HOME": str(home), "HOME": str(tmp_path)}
        settings = ResolverSettings(registry_gateway=peer, platform="linux/amd64")
        async with (
            started("services.registry_gateway", environment=environment) as gateway,
            open_resolver(tmp_path, settings) as service,
            served(service, short_directory) as stub,
        ):
            await serving(peer)
            call = stub.Resolve(pb.ResolveRequest(reference=reference), timeout=30)
            assert await asyncio.to_thread(held.first.wait, 20)
            gateway.kill()

            with pytest.raises(ServiceUnavailable) as caught:
                await call

    assert caught.value.retry_after is not None
