import asyncio

import pytest
from lns.vm.v1 import run_pb2

from cli.run.watching import State, Watch
from services.core.errors import RunUnknown, ServiceUnavailable
from tests.fakes.run_services import FakeRunner


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

    with pytest.raises(ServiceUnavailable):
        await Watch(runner, runner.run, note=print).until(ended, revive=nothing)

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

    await watch.until(lambda one: one.is_over, revive=nothing)

    assert watch.has_failed
