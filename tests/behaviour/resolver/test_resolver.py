"""The resolver through its real server: every RPC, every documented error, on a fake registry."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lns.resolver.v1 import resolver_service_pb2 as pb
from lns.types.v1 import descriptor_pb2, run_plan_pb2

from services.chassis.channel import open_channel
from services.chassis.server import running_server
from services.chassis.settings import PeerSettings, ServerSettings
from services.core.artifacts import families as f
from services.core.errors import (
    ArtifactTypeUnsupported,
    DeadlineExceeded,
    LnsError,
    ManifestUnknown,
    PlanInvalid,
    PlatformUnsupported,
    ReferenceInvalid,
    RegistryUnauthenticated,
    RegistryUnavailable,
    RequestInvalid,
    ServiceUnavailable,
)
from services.core.platforms import Platform
from services.resolver.bootstrap import open_resolver, service_with
from services.resolver.ports import FetchedManifest
from services.resolver.settings import ResolverSettings
from tests.fakes.manifest_source import AMD64, FakeManifests
from tests.support.resolver import served
from tests.support.shelf import HOST, IMAGE, Shelf

SETTINGS = ResolverSettings(platform="linux/amd64")


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
async def resolver(shelf: Shelf, short_directory: Path) -> AsyncIterator[Any]:
    async with served(service_with(shelf.manifests, SETTINGS), short_directory) as stub:
        yield stub


async def test_resolve_answers_with_a_plan_for_each_agent(resolver: Any, shelf: Shelf) -> None:
    reference = shelf.bundle(agents=[shelf.agent("one"), shelf.agent("two")])

    response = await resolver.Resolve(pb.ResolveRequest(reference=reference))

    assert [(plan.name, plan.group, plan.schema_version) for plan in response.plans] == [
        ("one", "system", 1),
        ("two", "system", 1),
    ]


async def test_offline_no_registry_is_asked_for_anything(resolver: Any, shelf: Shelf) -> None:
    reference = shelf.bundle(agents=[shelf.agent("one")])
    offline = pb.ResolveRequest(reference=reference, offline=True)

    with pytest.raises(ManifestUnknown):  # this node has nothing yet
        await resolver.Resolve(offline)
    await resolver.Resolve(pb.ResolveRequest(reference=reference))
    shelf.manifests.asked.clear()
    (plan,) = (await resolver.Resolve(offline)).plans

    assert plan.name == "one"
    assert all(one.offline for one in shelf.manifests.asked)


async def test_every_flag_of_the_request_arrives(resolver: Any, shelf: Shelf) -> None:
    shelf.fileset("fs", "/fs")
    reference = f"{HOST}/{shelf.agent(credentials=[{'name': 'known', 'env': 'K'}])}"
    overrides = pb.Overrides(
        argv=["run", "me"],
        env=[run_plan_pb2.EnvVar(name="X", value="1")],
        user="me",
        workdir="/w",
        cpus="1500m",
        memory="2g",
        disk="3g",
        ports=["8080:80"],
        volumes=["v:/v:ro"],
        mounts=[f"{HOST}/filesets/fs:1:/mine"],
        policy=pb.PolicyFile(name="p.yaml", text=b"network: {defaultVerdict: deny}"),
        name="mine",
        labels={"k": "v"},
        usable_credentials=["known"],
    )

    response = await resolver.Resolve(pb.ResolveRequest(reference=reference, overrides=overrides))

    (plan,) = response.plans
    assert list(plan.argv) == ["run", "me"]
    assert {entry.name: entry.value for entry in plan.env}["X"] == "1"
    assert (plan.user, plan.workdir, plan.name) == ("me", "/w", "mine")
    size = plan.resources
    assert (size.cpu_millis, size.memory_mib, size.disk_mib) == (1500, 2048, 3072)
    assert [(port.host_port, port.container_port) for port in plan.ports] == [(8080, 80)]
    assert [(v.source, v.target, v.read_only) for v in plan.volumes] == [("v", "/v", True)]
    assert [mount.path for mount in plan.mounts] == ["/mine"]
    assert plan.policy.default_verdict == "deny"
    assert dict(plan.labels) == {"k": "v"}
    assert list(plan.warnings) == []


async def test_offline_no_registry_is_asked(resolver: Any, shelf: Shelf) -> None:
    reference = f"{HOST}/{shelf.agent()}"
    with pytest.raises(ManifestUnknown):
        await resolver.Resolve(pb.ResolveRequest(reference=f"{HOST}/agents/x:1", offline=True))
    shelf.manifests.asked.clear()

    with pytest.raises(ManifestUnknown):
        await resolver.Resolve(pb.ResolveRequest(reference=reference, offline=True))

    assert shelf.manifests.asked
    assert all(ask.offline for ask in shelf.manifests.asked)


async def test_unset_flags_are_not_empty_ones(resolver: Any, shelf: Shelf) -> None:
    shelf.manifests.put_image(IMAGE, {"Cmd": ["x"], "User": "img", "WorkingDir": "/img"})

    response = await resolver.Resolve(
        pb.ResolveRequest(
            reference=IMAGE,
            overrides=pb.Overrides(),
            defaults=pb.Defaults(cpus="2", memory="512", disk="1g"),
        )
    )

    (plan,) = response.plans
    assert (plan.user, plan.workdir) == ("img", "/img")
    size = plan.resources
    assert (size.vcpus, size.memory_mib, size.disk_mib) == (2, 512, 1024)


async def test_an_entry_point_arrives(resolver: Any) -> None:
    response = await resolver.Resolve(
        pb.ResolveRequest(reference=IMAGE, overrides=pb.Overrides(entrypoint="/e", argv=["a"]))
    )

    assert list(response.plans[0].argv) == ["/e", "a"]


async def test_an_imageless_run_resolves(resolver: Any) -> None:
    response = await resolver.Resolve(
        pb.ResolveRequest(imageless=pb.Imageless(), overrides=pb.Overrides(argv=["uname"]))
    )

    (plan,) = response.plans
    assert plan.source.kind == "imageless"
    assert not plan.HasField("image")


async def test_a_platform_of_the_request_is_used(resolver: Any, shelf: Shelf) -> None:
    both = (AMD64, Platform(architecture="arm64"))
    shelf.manifests.put_image(f"{HOST}/images/multi:1", platforms=both)

    response = await resolver.Resolve(
        pb.ResolveRequest(
            reference=f"{HOST}/images/multi:1",
            platform=descriptor_pb2.Platform(os="linux", architecture="arm64"),
        )
    )

    assert response.plans[0].image.platform.architecture == "arm64"


ARM64 = Platform(architecture="arm64")


async def test_an_image_of_another_architecture_is_refused_with_the_platform_that_takes_it(
    resolver: Any, shelf: Shelf
) -> None:
    shelf.manifests.put_image(f"{HOST}/images/arm:1", platforms=(ARM64,))
    shelf.manifests.put_image(f"{HOST}/images/index:1", platforms=(ARM64,), index=True)

    for name in ("arm", "index"):
        with pytest.raises(PlatformUnsupported) as caught:
            await resolver.Resolve(pb.ResolveRequest(reference=f"{HOST}/images/{name}:1"))
        assert "`--platform linux/arm64` takes that one" in caught.value.hint


async def test_what_no_guest_executes_has_no_such_way_out(resolver: Any, shelf: Shelf) -> None:
    other = Platform(architecture="riscv64")
    shelf.manifests.put_image(f"{HOST}/images/other:1", platforms=(other,), index=True)
    request = pb.ResolveRequest(reference=f"{HOST}/images/other:1", emulate_foreign=True)

    with pytest.raises(PlatformUnsupported) as caught:
        await resolver.Resolve(request)

    assert "riscv64` takes" not in caught.value.hint


@pytest.mark.parametrize("index", [False, True])
async def test_a_foreign_image_is_taken_where_the_configuration_says_so(
    resolver: Any, shelf: Shelf, index: bool
) -> None:
    shelf.manifests.put_image(f"{HOST}/images/arm:1", platforms=(ARM64,), index=index)
    request = pb.ResolveRequest(reference=f"{HOST}/images/arm:1", emulate_foreign=True)

    (plan,) = (await resolver.Resolve(request)).plans

    assert plan.image.platform.architecture == "arm64"
    assert [line for line in plan.warnings if "its guest is emulated" in line]


async def test_an_image_that_has_the_own_platform_is_not_emulated(
    resolver: Any, shelf: Shelf
) -> None:
    shelf.manifests.put_image(f"{HOST}/images/both:1", platforms=(ARM64, AMD64))
    request = pb.ResolveRequest(reference=f"{HOST}/images/both:1", emulate_foreign=True)

    (plan,) = (await resolver.Resolve(request)).plans

    assert plan.image.platform.architecture == "amd64"
    assert not [line for line in plan.warnings if "emulated" in line]


async def test_a_bundle_mixes_platforms_and_so_does_its_lock(resolver: Any, shelf: Shelf) -> None:
    shelf.manifests.put_image(f"{HOST}/images/arm:1", platforms=(ARM64,), index=True)
    agents = [shelf.agent("own"), shelf.agent("foreign", image=f"{HOST}/images/arm:1")]
    reference = shelf.bundle(agents=agents)

    plans = (
        await resolver.Resolve(pb.ResolveRequest(reference=reference, emulate_foreign=True))
    ).plans
    locked = await resolver.Lock(pb.LockRequest(reference=reference, emulate_foreign=True))
    again = await resolver.Resolve(pb.ResolveRequest(lock=locked.lock))
    same = await resolver.CheckLock(pb.CheckLockRequest(lock=locked.lock))

    assert [plan.image.platform.architecture for plan in plans] == ["amd64", "arm64"]
    assert [bool(plan.warnings) for plan in plans] == [False, True]
    assert again.plans == plans
    assert list(same.differences) == []


async def test_lock_check_and_locked_resolve_fit_together(resolver: Any, shelf: Shelf) -> None:
    reference = shelf.bundle(agent=shelf.agent(), filesets=[shelf.fileset("fs", "/fs")])
    plans = (await resolver.Resolve(pb.ResolveRequest(reference=reference))).plans

    locked = await resolver.Lock(pb.LockRequest(reference=reference))
    same = await resolver.CheckLock(pb.CheckLockRequest(lock=locked.lock))
    shelf.agent(command=["changed"])
    changed = await resolver.CheckLock(pb.CheckLockRequest(lock=locked.lock))
    again = await resolver.Resolve(pb.ResolveRequest(lock=locked.lock))

    assert [entry.role for entry in locked.closure] == ["bundle", "agent", "fileset", "image"]
    assert list(same.differences) == []
    assert [one.component for one in changed.differences] == ["agent agents/hello:1"]
    assert again.plans == plans


async def test_a_plan_with_problems_lists_them_all_on_the_wire(resolver: Any, shelf: Shelf) -> None:
    reference = shelf.bundle(agent="agents/nope:1", model="models/nope:1", tools=["tools/nope:1"])

    with pytest.raises(PlanInvalid) as caught:
        await resolver.Resolve(pb.ResolveRequest(reference=reference))

    assert [(one.subject, one.type) for one in caught.value.violations] == [
        ("agent agents/nope:1", "MANIFEST_UNKNOWN"),
        ("model models/nope:1", "MANIFEST_UNKNOWN"),
        ("tools[0] tools/nope:1", "MANIFEST_UNKNOWN"),
    ]


@pytest.mark.parametrize(
    ("request_of", "error"),
    [
        (pb.ResolveRequest, RequestInvalid),
        (lambda: pb.ResolveRequest(imageless=pb.Imageless()), RequestInvalid),
        (lambda: pb.ResolveRequest(lock=b"no lock"), RequestInvalid),
        (lambda: pb.ResolveRequest(lock=b""), RequestInvalid),
        (
            lambda: pb.ResolveRequest(
                reference=IMAGE, platform=descriptor_pb2.Platform(os="linux")
            ),
            RequestInvalid,
        ),
        (lambda: pb.ResolveRequest(reference="NO reference"), ReferenceInvalid),
        (lambda: pb.ResolveRequest(reference=""), ReferenceInvalid),
        (lambda: pb.ResolveRequest(reference=f"{HOST}/agents/nope:1"), ManifestUnknown),
        (lambda: pb.ResolveRequest(reference=f"{HOST}/knowledge/k:1"), ArtifactTypeUnsupported),
        (lambda: pb.ResolveRequest(reference=f"{HOST}/locked:1"), RegistryUnauthenticated),
        (lambda: pb.ResolveRequest(reference=f"{HOST}/down:1"), RegistryUnavailable),
        (lambda: pb.ResolveRequest(reference=f"{HOST}/gone:1"), ServiceUnavailable),
        (
            lambda: pb.ResolveRequest(
                reference=IMAGE,
                platform=descriptor_pb2.Platform(os="linux", architecture="riscv64"),
            ),
            PlatformUnsupported,
        ),
    ],
)
async def test_an_error_keeps_its_class_on_the_wire(
    resolver: Any, shelf: Shelf, request_of: Any, error: type[LnsError]
) -> None:
    shelf.put(f.KNOWLEDGE, "k", {})
    shelf.manifests.failures |= {
        f"{HOST}/locked": RegistryUnauthenticated("log in"),
        f"{HOST}/down": RegistryUnavailable("down", retry_after=0.1),
        f"{HOST}/gone": ServiceUnavailable("gone", retry_after=0.1),
    }

    with pytest.raises(error):
        await resolver.Resolve(request_of(), timeout=20)


async def test_lock_and_check_answer_with_the_errors_of_resolve(resolver: Any) -> None:
    with pytest.raises(ManifestUnknown):
        await resolver.Lock(pb.LockRequest(reference=f"{HOST}/agents/nope:1"))
    with pytest.raises(RequestInvalid):
        await resolver.CheckLock(pb.CheckLockRequest(lock=b"version: 1"))


class Stuck(FakeManifests):
    """A source that never answers, and tells when it is asked and when it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = asyncio.Event()
        self.ended = asyncio.Event()

    async def fetch(
        self, reference: str, *, platform: Platform, offline: bool = False
    ) -> FetchedManifest:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()
        raise AssertionError(reference)


async def test_a_deadline_ends_the_resolution(short_directory: Path) -> None:
    source = Stuck()
    async with served(service_with(source, SETTINGS), short_directory) as stub:
        with pytest.raises(DeadlineExceeded):
            await stub.Resolve(pb.ResolveRequest(reference=IMAGE), timeout=0.3)

        await asyncio.wait_for(source.ended.wait(), 5)


async def test_a_client_that_leaves_ends_the_resolution(short_directory: Path) -> None:
    source = Stuck()
    async with served(service_with(source, SETTINGS), short_directory) as stub:
        call = stub.Resolve(pb.ResolveRequest(reference=IMAGE))
        await asyncio.wait_for(source.begun.wait(), 5)
        call.cancel()

        await asyncio.wait_for(source.ended.wait(), 5)


async def test_a_server_that_drains_lets_resolutions_go(short_directory: Path) -> None:
    source = Stuck()
    async with contextlib.AsyncExitStack() as stack:
        target = f"unix:{short_directory}/r.sock"
        server = await stack.enter_async_context(contextlib.AsyncExitStack())
        settings = ServerSettings(listen=(target,), grace=0.1, reflection=False)
        await server.enter_async_context(running_server(settings, [service_with(source, SETTINGS)]))
        channel = await stack.enter_async_context(
            open_channel(PeerSettings(target=target), pb.DESCRIPTOR)
        )
        call = channel.unary_unary(
            "/lns.resolver.v1.ResolverService/Resolve",
            request_serializer=pb.ResolveRequest.SerializeToString,
            response_deserializer=pb.ResolveResponse.FromString,
        )(pb.ResolveRequest(reference=IMAGE), timeout=10)
        await asyncio.wait_for(source.begun.wait(), 5)

        await server.aclose()

        assert source.ended.is_set()
        with pytest.raises(ServiceUnavailable):
            await call


async def test_many_resolutions_at_once_do_not_mix(resolver: Any, shelf: Shelf) -> None:
    references = [f"{HOST}/{shelf.agent(f'a{n}', command=[str(n)])}" for n in range(30)]

    responses = await asyncio.gather(
        *(resolver.Resolve(pb.ResolveRequest(reference=one)) for one in references)
    )

    assert [list(one.plans[0].argv) for one in responses] == [[str(n)] for n in range(30)]


async def test_without_a_gateway_the_answer_is_to_try_again(short_directory: Path) -> None:
    peer = PeerSettings(target=f"unix:{short_directory}/nobody.sock")
    settings = ResolverSettings(registry_gateway=peer, platform="linux/amd64")
    async with (
        open_resolver(short_directory, settings) as service,
        served(service, short_directory) as stub,
    ):
        with pytest.raises(ServiceUnavailable) as caught:
            await stub.Resolve(pb.ResolveRequest(reference=IMAGE), timeout=20)

    assert caught.value.retry_after == 1.0
