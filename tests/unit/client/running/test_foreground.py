import asyncio

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from lns.client.running.attachment import Attachment
from lns.client.running.foreground import follow_run
from lns.client.running.watching import State, Watch
from services.chassis.status import to_status
from services.core.errors import HostUnready, RunStateConflict, RunUnknown
from tests.fakes.run_services import RUN_ID, FakeRunner, exited, stdout
from tests.support.awaited import Awaited
from tests.support.eventually import eventually


class SilentConsole:
    """A user who types nothing; what was shown to them."""

    def __init__(self) -> None:
        self.shown = b""

    async def next_input(self) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def next_control(self) -> pb.AttachRequest:
        await asyncio.Event().wait()
        raise AssertionError

    async def show(self, data: bytes, *, is_error: bool) -> None:
        self.shown += data


async def nothing() -> None:
    """Revives nothing."""


def parts(runner: FakeRunner, console: SilentConsole | None = None) -> tuple[Watch, Attachment]:
    start = pb.AttachStart(run=RUN_ID, replay=True)
    return (
        Watch(runner, runner.run, note=print),
        Attachment(runner, start, console or SilentConsole(), revive=nothing),
    )


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lns.client.running.foreground._SETTLE_SECONDS", 0.05)


async def test_the_exit_code_is_that_of_the_attachment() -> None:
    runner = FakeRunner()
    runner.state(State.STATE_RUNNING)
    runner.connections = [[stdout(b"x"), exited(7)]]
    watch, attachment = parts(runner)

    ending = await follow_run(watch, attachment, runner, revive=nothing)

    assert ending.exit is not None
    assert ending.exit.code == 7
    assert watch.has_started


async def test_a_run_that_is_removed_at_its_end_is_gone_when_its_command_ends() -> None:
    runner = FakeRunner()
    runner.run.options.remove = True
    options = run_pb2.RunOptions(remove=True)
    runner.state(State.STATE_RUNNING, options=options)
    runner.state(State.STATE_EXITED, exit=run_pb2.ExitStatus(code=7), options=options)
    going = asyncio.Event()
    runner.events += [going, run_pb2.RunEvent(sequence=3, removed=run_pb2.RunRemoved())]
    runner.connections = [[exited(7)]]
    following = asyncio.ensure_future(follow_run(*parts(runner), runner, revive=nothing))
    await eventually(lambda: len(runner.watched_from) == 2)
    assert not following.done()

    going.set()
    ending = await following
    assert ending.exit is not None
    assert ending.exit.code == 7


async def test_a_removal_that_takes_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lns.client.running.foreground._REMOVAL_SECONDS", 0.05)
    runner = FakeRunner()
    runner.run.options.remove = True
    runner.connections = [[exited(7)]]

    ending = await follow_run(*parts(runner), runner, revive=nothing)
    assert ending.exit is not None


async def test_a_run_that_failed_before_there_was_a_process_says_why() -> None:
    runner = FakeRunner()
    runner.connections = [[asyncio.Event()]]
    runner.state(State.STATE_FAILED, error=to_status(HostUnready("no kernel", hint="get one")))
    watch, attachment = parts(runner)

    with pytest.raises(HostUnready, match="no kernel") as failure:
        await follow_run(watch, attachment, runner, revive=nothing)

    assert failure.value.hint == "get one"


async def test_a_run_that_ended_before_the_attachment_stood_still_has_its_exit_code() -> None:
    runner = FakeRunner()
    runner.connections = [[RunStateConflict("it has ended")]]
    runner.state(State.STATE_EXITED, exit=run_pb2.ExitStatus(code=5))
    watch, attachment = parts(runner)

    ending = await follow_run(watch, attachment, runner, revive=nothing)

    assert ending.exit is not None
    assert ending.exit.code == 5


async def test_a_failure_is_asked_for_when_the_watch_did_not_tell() -> None:
    runner = FakeRunner()
    runner.connections = [[RunStateConflict("it failed")]]
    runner.run.state = State.STATE_FAILED
    runner.run.error.CopyFrom(to_status(HostUnready("no QEMU")))
    watch, attachment = parts(runner)
    watch.run = run_pb2.Run(run_id=RUN_ID, state=State.STATE_STARTING)

    with pytest.raises(HostUnready, match="no QEMU"):
        await follow_run(watch, attachment, runner, revive=nothing)


async def test_a_refused_attachment_to_a_living_run_is_that_refusal() -> None:
    runner = FakeRunner()
    runner.connections = [[RunUnknown("no such run")]]
    watch, attachment = parts(runner)

    with pytest.raises(RunUnknown):
        await follow_run(watch, attachment, runner, revive=nothing)


async def test_output_that_still_comes_is_waited_for_after_the_run_ended() -> None:
    runner = FakeRunner()
    flushed = asyncio.Event()
    runner.state(State.STATE_RUNNING)
    runner.state(State.STATE_EXITED, exit=run_pb2.ExitStatus(code=0))
    runner.connections = [[flushed, stdout(b"late"), exited(0)]]
    console = SilentConsole()
    watch, attachment = parts(runner, console)

    following = asyncio.ensure_future(follow_run(watch, attachment, runner, revive=nothing))
    await eventually(lambda: watch.has_ended)
    flushed.set()

    assert (await following).exit is not None
    assert console.shown == b"late"


async def test_a_run_that_failed_and_was_started_again_is_attached_to() -> None:
    runner = FakeRunner()
    runner.state(
        State.STATE_FAILED, end_time=Timestamp(seconds=9), error=to_status(HostUnready("no"))
    )
    runner.state(State.STATE_STARTING)
    runner.connections = [[running := Awaited(), stdout(b"x"), exited(7)]]
    start = pb.AttachStart(run=RUN_ID)
    watch = Watch(runner, runner.run, note=print, has_past=True)
    attachment = Attachment(runner, start, SilentConsole(), revive=nothing)

    following = asyncio.ensure_future(follow_run(watch, attachment, runner, revive=nothing))
    await running.reached.wait()
    await runner.has_told_all.wait()
    running.set()

    ending = await following
    assert ending.exit is not None
    assert ending.exit.code == 7


async def test_a_run_that_fails_and_is_started_again_by_its_policy_is_followed_on() -> None:
    runner = FakeRunner()
    runner.state(
        State.STATE_FAILED, end_time=Timestamp(seconds=9), error=to_status(HostUnready("no"))
    )
    runner.state(State.STATE_STARTING)
    runner.connections = [[again := Awaited(), exited(0)]]
    watch, attachment = parts(runner)

    following = asyncio.ensure_future(follow_run(watch, attachment, runner, revive=nothing))
    await again.reached.wait()
    await runner.has_told_all.wait()
    again.set()

    assert (await following).exit is not None
