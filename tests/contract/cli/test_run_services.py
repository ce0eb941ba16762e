"""What the fakes of the services, which the tests of `lns run` script, share with the real ones.

The fakes say what a test has them say. What is checked here is the form that every such script
assumes: what comes first, what ends a stream, what is replayed.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lns.materializer.v1 import materializer_service_pb2 as materializer_pb
from lns.registry.v1 import registry_service_pb2 as registry_pb
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from lns.client.running.ports import Gateway, Materializer, Runner
from lns.client.running.watching import Watch
from services.core.errors import ManifestUnknown, RunStateConflict
from tests.fakes.run_services import FakeGateway, FakeMaterializer, FakeRunner
from tests.support.gateway import run_gateway
from tests.support.images import build_image, upload
from tests.support.materializer import served
from tests.support.registry import RunningRegistry
from tests.support.registry_fixtures import registry
from tests.support.tars import archive, entry
from tests.support.vm_service import vm_service, vm_world

__all__ = ["registry"]

State = run_pb2.Run.State


# The VM runner


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A runner with a run that wrote `out` and ended with 3."""

    runner: Runner
    run_id: str


@contextlib.asynccontextmanager
async def fake_runner(_: Path) -> AsyncIterator[Ended]:
    fake = FakeRunner()
    for state in (State.STATE_CREATED, State.STATE_STARTING, State.STATE_RUNNING):
        fake.state(state)
    fake.state(State.STATE_EXITED, exit=run_pb2.ExitStatus(code=3))
    fake.connections = [
        [
            pb.AttachResponse(started=pb.Attached(run_id=fake.run.run_id)),
            pb.AttachResponse(stdout=b"out"),
            pb.AttachResponse(exited=run_pb2.ExitStatus(code=3)),
        ]
    ]
    yield Ended(runner=fake, run_id=fake.run.run_id)


@contextlib.asynccontextmanager
async def served_runner(home: Path) -> AsyncIterator[Ended]:
    async with vm_world(home) as world, vm_service(world) as vm:
        run = await vm.shell("printf out; exit 3")
        await vm.ended(run.run_id)
        yield Ended(runner=vm.stub, run_id=run.run_id)


@pytest.fixture(params=[fake_runner, served_runner])
async def ended(request: pytest.FixtureRequest, short_directory: Path) -> AsyncIterator[Ended]:
    async with request.param(short_directory) as made:
        yield made


async def events(ended: Ended, after: int = 0) -> list[run_pb2.RunEvent]:
    request = pb.WatchRunRequest(run=ended.run_id, after_sequence=after, until_ended=True)
    async with asyncio.timeout(10):
        return [response.event async for response in ended.runner.WatchRun(request)]


async def test_the_events_of_a_run_are_replayed_in_order_up_to_its_end(ended: Ended) -> None:
    seen = await events(ended)

    assert [event.sequence for event in seen] == list(range(1, len(seen) + 1))
    changes = [event.state_changed for event in seen if event.HasField("state_changed")]
    assert {run.run_id for run in changes} == {ended.run_id}
    states = [run.state for run in changes]
    assert states.index(State.STATE_STARTING) < states.index(State.STATE_RUNNING)
    assert (changes[-1].state, changes[-1].exit.code) == (State.STATE_EXITED, 3)


async def test_events_go_on_behind_the_one_that_was_seen(ended: Ended) -> None:
    seen = await events(ended)

    for number in range(len(seen)):
        assert await events(ended, after=number) == seen[number:]


async def test_an_attachment_starts_then_brings_output_then_the_end(ended: Ended) -> None:
    async def requests() -> AsyncIterator[pb.AttachRequest]:
        yield pb.AttachRequest(start=pb.AttachStart(run=ended.run_id, replay=True))
        await asyncio.Event().wait()

    async with asyncio.timeout(10):
        answers = [answer async for answer in ended.runner.Attach(requests())]

    kinds = [answer.WhichOneof("message") for answer in answers]
    assert (kinds[0], kinds[-1]) == ("started", "exited")
    assert set(kinds[1:-1]) == {"stdout"}
    assert b"".join(answer.stdout for answer in answers) == b"out"
    assert answers[0].started.run_id == ended.run_id
    assert answers[-1].exited.code == 3


async def test_a_run_is_described_and_removed_by_its_id(ended: Ended) -> None:
    described = await ended.runner.GetRun(pb.GetRunRequest(run=ended.run_id))
    removed = await ended.runner.RemoveRun(pb.RemoveRunRequest(run=ended.run_id, force=True))

    assert described.run.run_id == removed.run_id == ended.run_id


@contextlib.asynccontextmanager
async def fake_restarted(_: Path) -> AsyncIterator[Ended]:
    fake = FakeRunner()
    for number in (1, 2):
        times = {"start_time": Timestamp(seconds=number), "end_time": Timestamp(seconds=number)}
        fake.state(State.STATE_STARTING)
        fake.state(State.STATE_RUNNING, start_time=times["start_time"])
        fake.state(State.STATE_EXITED, exit=run_pb2.ExitStatus(code=number), **times)
    fake.run.start_time.CopyFrom(Timestamp(seconds=2))
    yield Ended(runner=fake, run_id=fake.run.run_id)


@contextlib.asynccontextmanager
async def served_restarted(home: Path) -> AsyncIterator[Ended]:
    lives = home / "lives"
    async with vm_world(home) as world, vm_service(world) as vm:
        run = await vm.shell(f"echo >> {lives}; sleep 0.2; exit $(wc -l < {lives})")
        await vm.ended(run.run_id)
        await vm.stub.StartRun(pb.StartRunRequest(run=run.run_id))
        yield Ended(runner=vm.stub, run_id=run.run_id)


@pytest.mark.parametrize("opened", [fake_restarted, served_restarted])
async def test_a_run_that_was_started_again_is_watched_to_the_end_of_that_life(
    opened: Callable[[Path], AbstractAsyncContextManager[Ended]], short_directory: Path
) -> None:
    """The first life ended with 1; which events are of the second, their times tell."""

    async def nothing() -> None:
        pass

    async with opened(short_directory) as ended, asyncio.timeout(10):
        found = (await ended.runner.GetRun(pb.GetRunRequest(run=ended.run_id))).run
        assert not Watch(ended.runner, found, note=print).has_ended
        watch = Watch(ended.runner, found, note=print, has_past=True)
        await watch.until(lambda one: one.has_ended, revive=nothing)

    assert watch.run.exit.code == 2


@contextlib.asynccontextmanager
async def fake_booting(_: Path) -> AsyncIterator[Ended]:
    fake = FakeRunner()
    fake.state(State.STATE_STARTING)
    yield Ended(runner=fake, run_id=fake.run.run_id)


@contextlib.asynccontextmanager
async def served_booting(home: Path) -> AsyncIterator[Ended]:
    async with vm_world(home) as world:
        world.limits = dataclasses.replace(world.limits, boots_at_once=0)  # it waits its turn
        async with vm_service(world) as vm:
            run = await vm.shell("exit 0")
            yield Ended(runner=vm.stub, run_id=run.run_id)


@pytest.mark.parametrize("opened", [fake_booting, served_booting])
async def test_a_run_that_boots_cannot_be_killed_but_stopped(
    opened: Callable[[Path], AbstractAsyncContextManager[Ended]], short_directory: Path
) -> None:
    async with opened(short_directory) as booting, asyncio.timeout(10):
        with pytest.raises(RunStateConflict):
            await booting.runner.KillRun(pb.KillRunRequest(run=booting.run_id, signal="KILL"))
        request = pb.StopRunRequest(run=booting.run_id)
        stopped = await booting.runner.StopRun(request, timeout=10)

    assert stopped.run.run_id == booting.run_id


# The registry gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """A gateway, a reference that it can pull, and one that it cannot."""

    gateway: Gateway
    there: str
    absent: str


@contextlib.asynccontextmanager
async def fake_gateway(request: pytest.FixtureRequest) -> AsyncIterator[Images]:
    absent = ManifestUnknown("there is no r.test/absent:1")
    fake = FakeGateway({"r.test/absent:1": absent})
    yield Images(gateway=fake, there="r.test/there:1", absent="r.test/absent:1")


@contextlib.asynccontextmanager
async def served_gateway(request: pytest.FixtureRequest) -> AsyncIterator[Images]:
    registry: RunningRegistry = request.getfixturevalue("registry")
    home: Path = request.getfixturevalue("short_directory")
    repository = registry.new_repository()
    path = repository.removeprefix(f"{registry.host}/")
    upload(registry.url, path, build_image(b"layer"), "1")
    async with run_gateway(home) as gateway:
        yield Images(gateway=gateway.stub, there=f"{repository}:1", absent=f"{repository}:2")


@pytest.fixture(params=[fake_gateway, served_gateway])
async def images(request: pytest.FixtureRequest) -> AsyncIterator[Images]:
    async with request.param(request) as made:
        yield made


async def test_a_pull_is_progress_and_then_one_result(images: Images) -> None:
    request = registry_pb.PullRequest(reference=images.there)

    answers = [answer async for answer in images.gateway.Pull(request)]

    assert [answer.HasField("result") for answer in answers[:-1]] == [False] * (len(answers) - 1)
    assert answers[-1].result.reference == images.there
    assert all(answer.progress.digest for answer in answers[:-1])


async def test_a_pull_of_what_does_not_exist_fails_without_a_result(images: Images) -> None:
    request = registry_pb.PullRequest(reference=images.absent)
    answers = []

    with pytest.raises(ManifestUnknown):
        async for answer in images.gateway.Pull(request):
            answers.append(answer)  # noqa: PERF401 - kept although it fails
    assert not any(answer.HasField("result") for answer in answers)


# The materializer


@contextlib.asynccontextmanager
async def fake_materializer(_: Path) -> AsyncIterator[tuple[Materializer, str]]:
    yield FakeMaterializer(), "sha256:" + "a" * 64


@contextlib.asynccontextmanager
async def served_materializer(home: Path) -> AsyncIterator[tuple[Materializer, str]]:
    async with served(home) as client:
        yield client.stub, client.blobs.image(archive(entry(b"file", b"content")))


@pytest.mark.parametrize("opened", [fake_materializer, served_materializer])
async def test_a_materialization_ends_with_one_result_that_names_the_image(
    opened: Callable[[Path], AbstractAsyncContextManager[tuple[Materializer, str]]],
    short_directory: Path,
) -> None:
    async with opened(short_directory) as (materializer, manifest):
        request = materializer_pb.MaterializeRequest(manifest_digest=manifest)
        answers = [answer async for answer in materializer.Materialize(request)]

    assert [answer.HasField("result") for answer in answers].count(True) == 1
    digest = answers[-1].result.image.composefs_digest
    assert (len(digest), digest[:7]) == (71, "sha256:")
