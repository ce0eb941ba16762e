from lns.vm.v1 import run_pb2

from cli.run.signals import SignalSender
from services.core.errors import RunStateConflict
from tests.fakes.run_services import RUN_ID, FakeRunner
from tests.support.outcomes import passes


async def sent(*names: str, started: bool = True) -> list[str]:
    runner = FakeRunner()
    runner.run.state = run_pb2.Run.STATE_RUNNING
    async with SignalSender(runner, RUN_ID, has_started=lambda: started) as signals:
        for name in names:
            signals.send(name)
    return runner.signals


async def test_signals_reach_the_workload_under_their_names() -> None:
    assert await sent("TERM", "USR1", "HUP") == ["TERM", "USR1", "HUP"]


async def test_the_third_interrupt_kills() -> None:
    assert await sent("INT", "INT", "INT") == ["INT", "INT", "KILL"]


async def test_a_run_that_still_boots_is_stopped_since_it_cannot_be_killed() -> None:
    runner = FakeRunner()

    async with SignalSender(runner, RUN_ID, has_started=lambda: False) as signals:
        signals.send("INT")

    assert runner.stopping.is_set()


async def test_a_run_that_has_just_ended_is_no_failure() -> None:
    class EndedRunner(FakeRunner):
        async def KillRun(self, request: object, /) -> object:  # type: ignore[override]  # noqa: N802  # the RPC, failing
            raise RunStateConflict("it has ended")

    with passes():
        async with SignalSender(EndedRunner(), RUN_ID, has_started=lambda: True) as signals:
            signals.send("TERM")
