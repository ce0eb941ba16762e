"""A run as a Python program holds it: what exec keeps, where it ends, what leaving does."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from lns.client.run import Run
from lns.client.values import Completed, Output
from services.chassis.status import to_status
from services.core.errors import LimitExceeded, RequestInvalid, RunUnknown, VmFailed
from tests.fakes.run_services import RUN_ID, FakeRunner, exited, stderr, stdout
from tests.support.eventually import eventually
from tests.support.outcomes import passes

STARTED = pb.AttachResponse(started=pb.Attached(run_id=RUN_ID))
READY = pb.AttachResponse(stdin_ready=pb.StdinReady())


@pytest.fixture
def runner() -> FakeRunner:
    return FakeRunner()


@pytest.fixture
def run(runner: FakeRunner) -> Run:
    async def revive() -> None:
        pass

    session: Any = SimpleNamespace(vm=runner, revive=revive)
    return Run(session, runner.run)


async def test_exec_returns_the_code_and_what_was_written(runner: FakeRunner, run: Run) -> None:
    runner.connections = [[STARTED, stdout(b"out"), stderr(b"err"), stdout(b"more"), exited(3)]]

    done = await run.exec("sh", "-c", "x", env={"B": "2", "A": "1"}, user="app", workdir="/srv")

    assert done == Completed(code=3, stdout=b"outmore", stderr=b"err")
    assert not done.ok
    spec = runner.starts[0].exec
    assert list(spec.argv) == ["sh", "-c", "x"]
    assert [(one.name, one.value) for one in spec.env] == [("A", "1"), ("B", "2")]
    assert (spec.user, spec.workdir) == ("app", "/srv")
    assert not runner.starts[0].stdin


async def test_exec_gives_its_input_and_ends_it(runner: FakeRunner, run: Run) -> None:
    given = asyncio.Event()
    runner.connections = [[STARTED, READY, given, exited(0)]]
    doing = asyncio.ensure_future(run.exec("cat", given=b"hello"))

    def closed() -> bool:
        return bool(runner.received) and any(
            one.HasField("stdin_closed") for one in runner.received[0]
        )

    await eventually(closed)
    given.set()

    assert (await doing).ok
    assert b"".join(one.stdin for one in runner.received[0]) == b"hello"


async def test_a_command_that_takes_too_long_is_killed(runner: FakeRunner, run: Run) -> None:
    runner.connections = [[STARTED, asyncio.Event()]]
    doing = asyncio.ensure_future(run.exec("sleep", "9", within=0.01))

    await eventually(
        lambda: bool(runner.received) and any(one.signal == "KILL" for one in runner.received[0])
    )
    doing.cancel()


async def test_a_command_that_writes_too_much_is_ended(runner: FakeRunner, run: Run) -> None:
    runner.connections = [[STARTED, stdout(b"x" * 60), stderr(b"x" * 41), asyncio.Event()]]

    with pytest.raises(LimitExceeded):
        await run.exec("yes", max_output=100)

    assert any(one.HasField("output_closed") for one in runner.received[0])


async def test_exactly_as_much_as_may_be_kept_is_kept(runner: FakeRunner, run: Run) -> None:
    runner.connections = [[STARTED, stdout(b"x" * 100), exited(0)]]

    assert len((await run.exec("yes", max_output=100)).stdout) == 100


async def test_no_command_is_refused_before_anything_is_asked(runner: FakeRunner, run: Run) -> None:
    with pytest.raises(RequestInvalid):
        await run.exec()

    assert runner.starts == []


async def test_a_process_is_written_to_read_from_and_waited_for(
    runner: FakeRunner, run: Run
) -> None:
    answered = asyncio.Event()
    runner.connections = [[STARTED, READY, answered, stdout(b"4"), stderr(b"!"), exited(7)]]

    async with run.process("bc") as process:
        await process.write(b"2+2\n")
        await eventually(
            lambda: (
                bool(runner.received) and any(one.stdin == b"2+2\n" for one in runner.received[0])
            )
        )
        answered.set()
        pieces = [piece async for piece in process]
        done = await process.wait()

    assert pieces == [Output(b"4"), Output(b"!", is_error=True)]
    assert done.code == 7


@pytest.mark.parametrize(("is_exec", "said"), [(True, "signal"), (False, "detach")])
async def test_leaving_ends_a_process_and_not_the_workload(
    runner: FakeRunner, run: Run, is_exec: bool, said: str
) -> None:
    left = asyncio.Event()
    pieces = [stdout(b"x")] * 40  # more than wait to be read: the reader is held up
    runner.connections = [[STARTED, READY, *pieces, left, exited(137)]]

    async with run.process("sleep", "9") if is_exec else run.attach() as process:
        async for _ in process:
            break
        asyncio.get_running_loop().call_later(0.05, left.set)

    assert [one.WhichOneof("message") for one in runner.received[0]][-1] == said


async def test_a_run_is_removed_where_its_block_ends(runner: FakeRunner, run: Run) -> None:
    with pytest.raises(ZeroDivisionError):
        async with run:
            raise ZeroDivisionError

    assert runner.removed == [RUN_ID]


async def test_one_that_was_removed_can_be_removed(runner: FakeRunner, run: Run) -> None:
    async def unknown(request: pb.RemoveRunRequest, /) -> pb.RemoveRunResponse:
        raise RunUnknown("it does not exist")

    runner.RemoveRun = unknown  # type: ignore[method-assign]  # for this test

    with passes():
        await run.remove()


async def test_wait_returns_how_the_workload_ended(runner: FakeRunner, run: Run) -> None:
    runner.state(run_pb2.Run.STATE_RUNNING)
    runner.state(
        run_pb2.Run.STATE_EXITED, exit=run_pb2.ExitStatus(code=137, signal="KILL", oom_killed=True)
    )

    assert await run.wait() == Completed(code=137, signal="KILL", oom_killed=True)


async def test_wait_raises_why_a_run_failed(runner: FakeRunner, run: Run) -> None:
    runner.state(run_pb2.Run.STATE_FAILED, error=to_status(VmFailed("the machine ended")))

    with pytest.raises(VmFailed, match="the machine ended"):
        await run.wait()
