import asyncio

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lns.vm.v1 import run_pb2

from lns.client.running.watching import State, Watch
from services.core.errors import RunUnknown, ServiceUnavailable
from tests.fakes.run_services import RUN_ID, FakeRunner
from tests.support.awaited import Awaited


async def nothing() -> None:
    """Revives nothing."""


def ended(watch: Watch) -> bool:
    return watch.has_ended


async def test_a_watch_knows_when_the_workload_started_and_how_it_ended() -> None:
    runner = FakeRunner()
    runner.state(State.STATE_STARTING)
    runner.state(State.STATE_RUNNING)
    runner.state(State.STATE_EXITED, exit=run_pb2.ExitStatus(code=4))
    watch = Watch(runner, runner.run, note=print, clock=iter([1.0, 1.5]).__next__)

    await watch.until(ended, revive=nothing)

    assert watch.started_after == 0.5
    assert watch.run.exit.code == 4
    assert watch.has_ended


async def test_notices_are_shown() -> None:
    runner, notes = FakeRunner(), list[str]()
    runner.events.append(run_pb2.RunEvent(sequence=1, notice="software emulation"))
    runner.state(State.STATE_EXITED)

    await Watch(runner, runner.run, note=notes.append).until(ended, revive=nothing)

    assert notes == ["lns: software emulation"]


async def test_a_broken_watch_goes_on_after_what_it_knows() -> None:
    runner, notes, revived = FakeRunner(), list[str](), list[int]()

    async def revive() -> None:
        revived.append(1)

    runner.events.append(run_pb2.RunEvent(sequence=1, notice="once"))
    runner.events.append(ServiceUnavailable("gone"))
    runner.state(State.STATE_EXITED)

    await Watch(runner, runner.run, note=notes.append).until(ended, revive=revive)

    assert notes == ["lns: once"]
    assert runner.watched_from == [0, 1]
    assert revived == [1]


async def test_a_removed_run_ends_the_watch() -> None:
    runner = FakeRunner()
    runner.events.append(run_pb2.RunEvent(sequence=1, removed=run_pb2.RunRemoved()))

    async with asyncio.timeout(5):
        await Watch(runner, runner.run, note=print).until(ended, revive=nothing)


async def test_a_watch_can_stop_early() -> None:
    runner = FakeRunner()
    runner.state(State.STATE_RUNNING)

    async with asyncio.timeout(5):
        watch = Watch(runner, runner.run, note=print)
        await watch.until(lambda one: one.has_started, revive=nothing)

    assert not watch.has_ended


async def test_services_that_stay_away_are_given_up() -> None:
    runner = FakeRunner()
    runner.events = [ServiceUnavailable("gone") for _ in range(20)]

    with pytest.raises(ServiceUnavailable, match="the run goes on without it: gone") as caught:
        await Watch(runner, runner.run, note=print).until(ended, revive=nothing)
    assert "lns attach" in caught.value.hint

    assert len(runner.watched_from) == 6


async def test_a_refusal_is_final() -> None:
    runner = FakeRunner()
    runner.events = [RunUnknown("no run")]

    with pytest.raises(RunUnknown):
        await Watch(runner, runner.run, note=print).until(ended, revive=nothing)


async def test_a_run_that_starts_again_by_itself_is_watched_on() -> None:
    runner = FakeRunner()
    policy = run_pb2.RestartPolicy(mode=run_pb2.RestartPolicy.MODE_ALWAYS)
    options = run_pb2.RunOptions(restart=policy)
    runner.run.options.CopyFrom(options)
    runner.state(State.STATE_EXITED, options=options)
    runner.state(State.STATE_STARTING, options=options)
    runner.state(State.STATE_FAILED, options=options)
    watch = Watch(runner, runner.run, note=print)

    await watch.until(lambda _: False, revive=nothing)

    assert watch.is_over
    assert watch.has_failed


# A run that was started again


def second(number: int) -> Timestamp:
    return Timestamp(seconds=1_800_000_000 + number)


def started_again(runner: FakeRunner, *, found: run_pb2.Run) -> Watch:
    """A run that was started at 10, ended with 3 at 20, and was started again; and its watch."""
    runner.state(State.STATE_CREATED)
    runner.state(State.STATE_STARTING)
    runner.events.append(run_pb2.RunEvent(sequence=3, notice="of the first life"))
    runner.state(State.STATE_RUNNING, start_time=second(10))
    runner.state(
        State.STATE_EXITED,
        start_time=second(10),
        end_time=second(20),
        exit=run_pb2.ExitStatus(code=3),
    )
    runner.state(State.STATE_STARTING)
    runner.run = run_pb2.Run()
    runner.run.CopyFrom(found)
    runner.run.run_id = RUN_ID
    return Watch(runner, runner.run, note=print, has_past=True)


async def test_a_run_that_runs_again_is_waited_for_though_it_ended_before() -> None:
    runner = FakeRunner()
    running = run_pb2.Run(state=State.STATE_RUNNING, start_time=second(30))
    watch = started_again(runner, found=running)
    ends = Awaited()
    runner.state(State.STATE_RUNNING, start_time=second(30))
    runner.events.append(ends)

    waiting = asyncio.ensure_future(watch.until(ended, revive=nothing))
    await ends.reached.wait()
    assert not waiting.done()
    exit_status = run_pb2.ExitStatus(code=7)
    runner.state(State.STATE_EXITED, start_time=second(30), end_time=second(40), exit=exit_status)
    ends.set()
    async with asyncio.timeout(5):
        await waiting

    assert watch.run.exit.code == 7


async def test_a_run_that_ends_between_two_looks_has_the_code_of_that_life() -> None:
    runner = FakeRunner()
    running = run_pb2.Run(state=State.STATE_RUNNING, start_time=second(10))
    watch = started_again(runner, found=running)

    async with asyncio.timeout(5):
        await watch.until(ended, revive=nothing)

    assert watch.run.exit.code == 3


async def test_a_run_that_boots_again_is_waited_for_though_it_ended_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runner = FakeRunner()
    watch = started_again(runner, found=run_pb2.Run(state=State.STATE_STARTING))
    boots, runs = Awaited(), Awaited()
    runner.events.append(boots)

    waiting = asyncio.ensure_future(watch.until(ended, revive=nothing))
    await boots.reached.wait()
    assert not waiting.done()
    running = {"state": State.STATE_RUNNING, "start_time": second(30)}
    runner.run = run_pb2.Run(run_id=RUN_ID, **running)  # type: ignore[arg-type]  # the fields of the message
    runner.state(**running)  # type: ignore[arg-type]  # the same
    runner.events.append(runs)
    boots.set()
    await runs.reached.wait()
    assert not waiting.done()
    exit_status = run_pb2.ExitStatus(code=7)
    runner.state(State.STATE_EXITED, start_time=second(30), end_time=second(40), exit=exit_status)
    runs.set()
    async with asyncio.timeout(5):
        await waiting

    assert watch.run.exit.code == 7
    assert "of the first life" not in capsys.readouterr().out


async def test_a_boot_that_fails_is_not_taken_for_a_life_before() -> None:
    runner = FakeRunner()
    watch = started_again(runner, found=run_pb2.Run(state=State.STATE_STARTING))
    boots = Awaited()
    runner.events.append(boots)

    waiting = asyncio.ensure_future(watch.until(ended, revive=nothing))
    await boots.reached.wait()
    failed = {"state": State.STATE_FAILED, "end_time": second(40)}
    runner.run = run_pb2.Run(run_id=RUN_ID, **failed)  # type: ignore[arg-type]  # the fields of the message
    runner.state(**failed)  # type: ignore[arg-type]  # the same
    boots.set()
    async with asyncio.timeout(5):
        await waiting

    assert watch.has_failed


async def test_a_run_that_is_removed_as_it_boots_again_ends_the_watch() -> None:
    runner = FakeRunner()
    watch = started_again(runner, found=run_pb2.Run(state=State.STATE_STARTING))
    boots = Awaited()
    runner.events.append(boots)

    waiting = asyncio.ensure_future(watch.until(ended, revive=nothing))
    await boots.reached.wait()
    runner.is_removed = True
    runner.state(State.STATE_EXITED, end_time=second(40), exit=run_pb2.ExitStatus(code=137))
    boots.set()
    async with asyncio.timeout(5):
        await waiting

    assert watch.run.exit.code == 137
