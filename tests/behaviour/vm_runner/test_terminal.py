"""Attaching to a run's workload, and processes beside it."""

import asyncio
import gc
import hashlib

import pytest
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.core.errors import (
    AttachLagging,
    LimitExceeded,
    RequestInvalid,
    RunStateConflict,
    RunUnknown,
)
from tests.support.eventually import eventually
from tests.support.vm_service import Terminal, VmClient, VmWorld, vm_service

pb = vm_service_pb2
Run = run_pb2.Run
Options = run_pb2.RunOptions
FOREVER = "trap 'exit 5' TERM; while :; do sleep 0.01; done"


def attach(run: Run, *, replay: bool = True, stdin: bool = False) -> pb.AttachStart:
    return pb.AttachStart(run=run.run_id, replay=replay, stdin=stdin)


async def test_standard_input_reaches_the_workload_and_its_end_is_passed_on(
    vm: VmClient,
) -> None:
    run = await vm.create("cat", options=Options(stdin=True))
    async with vm.attach(attach(run, stdin=True)) as terminal:
        await terminal.send(stdin=b"binary\x00\xff")
        await terminal.send(stdin=b" data")
        await terminal.send(stdin_closed=pb.StdinClosed())
        out, _, status = await terminal.rest()

    assert (out, status.code) == (b"binary\x00\xff data", 0)


async def test_a_client_that_leaves_without_a_word_leaves_nothing_behind(vm: VmClient) -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: complaints.append(context["message"])
    )
    run = await vm.shell(FOREVER)
    async with vm.attach(attach(run)):
        await eventually(is_conversing)
    await eventually(lambda: not is_conversing())
    gc.collect()  # a task that nobody waits for any more complains now

    assert complaints == []
    await vm.stub.StopRun(pb.StopRunRequest(run=run.run_id))


def is_conversing() -> bool:
    return any("_put_output" in repr(task.get_coro()) for task in asyncio.all_tasks())


async def test_a_workload_that_was_given_no_input_has_none(vm: VmClient) -> None:
    run = await vm.create("cat")
    out, _, status = await vm.output(run.run_id)

    assert (out, status.code) == (b"", 0)


async def test_everything_that_clients_attach_to_is_the_same(vm: VmClient) -> None:
    run = await vm.shell("echo first; read x; echo second", options=Options(stdin=True))
    async with vm.attach(attach(run)) as early, vm.attach(attach(run, stdin=True)) as other:
        await early.until(b"first\n")
        await other.until(b"first\n")
        async with vm.attach(attach(run, replay=False)) as late:
            await other.send(stdin=b"\n")
            outputs = [(await terminal.rest())[0] for terminal in (early, other, late)]

    assert outputs == [b"second\n"] * 3


async def test_a_client_that_leaves_lets_the_workload_go_on(vm: VmClient) -> None:
    run = await vm.shell(f"echo up; {FOREVER}", options=Options(stdin=True))
    async with vm.attach(attach(run, stdin=True)) as terminal:
        await terminal.until(b"up")
        await terminal.send(detach=pb.Detach())
        assert (await terminal.read()).WhichOneof("message") == "detached"

    assert (await vm.get(run.run_id)).state == Run.STATE_RUNNING


async def test_a_client_that_is_lost_lets_the_workload_go_on(vm: VmClient) -> None:
    run = await vm.shell("echo up; read x; echo got $x", options=Options(stdin=True))
    async with vm.attach(attach(run, stdin=True)) as terminal:
        await terminal.until(b"up")
    async with vm.attach(attach(run, stdin=True)) as terminal:
        await terminal.send(stdin=b"word\n")
        await terminal.until(b"got word\n")


async def test_a_terminal_has_a_size_and_knows_control_c(vm: VmClient) -> None:
    script = "stty size; echo ready; read x; stty size; exec sleep 60"
    size = run_pb2.TerminalSize(rows=33, columns=101)
    run = await vm.shell(script, options=Options(stdin=True, tty=True, terminal=size))
    async with vm.attach(attach(run, stdin=True)) as terminal:
        assert b"33 101" in await terminal.until(b"ready")
        await terminal.send(resize=run_pb2.TerminalSize(rows=5, columns=6))
        await terminal.send(stdin=b"\n")
        await terminal.until(b"5 6")
        await terminal.send(stdin=b"\x03")
        _, _, status = await terminal.rest()

    assert status.signal == "INT"


async def test_a_signal_of_the_client_reaches_the_workload(vm: VmClient) -> None:
    run = await vm.shell(f"echo up; {FOREVER}")
    async with vm.attach(attach(run)) as terminal:
        await terminal.until(b"up")
        await terminal.send(signal="TERM")
        _, _, status = await terminal.rest()

    assert status.code == 5


async def test_a_run_that_has_ended_replays_what_it_wrote(vm: VmClient) -> None:
    run = await vm.shell("echo all of it; exit 2")
    await vm.ended(run.run_id)

    out, _, status = await vm.output(run.run_id)
    assert (out, status.code) == (b"all of it\n", 2)


async def test_a_run_that_was_never_started_cannot_be_attached_to(vm: VmClient) -> None:
    run = await vm.create("true", start=False)
    with pytest.raises(RunStateConflict):
        await vm.output(run.run_id)


async def test_the_first_message_says_what_to_attach_to(vm: VmClient) -> None:
    run = await vm.shell(FOREVER)
    call = vm.stub.Attach()
    await call.write(pb.AttachRequest(stdin=b"x"))
    with pytest.raises(RequestInvalid):
        await call.read()
    with pytest.raises(RunUnknown):
        await vm.output("nobody")
    async with vm.attach(attach(run)) as terminal:
        await terminal.send(start=attach(run))
        with pytest.raises(RequestInvalid):
            await terminal.rest()


async def test_a_chunk_that_is_too_large_is_refused(vm: VmClient) -> None:
    run = await vm.create("cat", options=Options(stdin=True))
    async with vm.attach(attach(run, stdin=True)) as terminal:
        await terminal.send(stdin=bytes((1 << 20) + 1))
        with pytest.raises(LimitExceeded):
            await terminal.rest()


async def test_more_output_than_the_log_keeps_comes_through_intact(
    vm: VmClient, world: VmWorld
) -> None:
    """An attached client that reads on gets every byte, whatever the log has given up."""
    size = 20 * world.log_bytes
    run = await vm.shell(f"sleep 0.2; head -c {size} /dev/zero")
    digest, count = hashlib.sha256(), 0
    async with vm.attach(attach(run)) as terminal:
        while (answer := await terminal.read()).WhichOneof("message") == "stdout":
            digest.update(answer.stdout)
            count += len(answer.stdout)

    assert count == size
    assert digest.hexdigest() == hashlib.sha256(bytes(size)).hexdigest()
    logs = world.home / "runs" / run.run_id / "logs"
    assert sum(path.stat().st_size for path in logs.iterdir()) <= 1.2 * world.log_bytes


async def test_a_client_that_stands_still_is_let_go_and_the_workload_goes_on(
    world: VmWorld,
) -> None:
    world.stall_seconds = 0.2
    async with vm_service(world) as vm:
        run = await vm.shell("sleep 0.2; head -c 60000000 /dev/zero; exit 3")
        async with vm.attach(attach(run)) as stalled:
            ended = await vm.ended(run.run_id)
            with pytest.raises(AttachLagging):
                await stalled.rest()

    assert ended.exit.code == 3


async def test_a_process_is_executed_beside_the_workload(vm: VmClient) -> None:
    run = await vm.shell(FOREVER)
    await vm.until(run.run_id, Run.STATE_RUNNING)

    out, err, status = await vm.execute(run.run_id, "sh", "-c", "echo $PATH; echo e >&2; exit 9")
    assert (out, err, status.code) == (b"/usr/local/bin:/usr/bin:/bin\n", b"e\n", 9)
    out, _, _ = await vm.execute(run.run_id, "cat", stdin=[b"pi", b"pe"])
    assert out == b"pipe"
    out, _, _ = await vm.execute(run.run_id, "tty", tty=True)
    assert out.startswith(b"/dev/pts/")
    assert (await vm.get(run.run_id)).state == Run.STATE_RUNNING


async def test_many_processes_are_executed_at_once(vm: VmClient) -> None:
    run = await vm.shell(FOREVER)
    await vm.until(run.run_id, Run.STATE_RUNNING)

    results = await asyncio.gather(
        *(vm.execute(run.run_id, "sh", "-c", f"echo {n}; exit {n}") for n in range(30))
    )
    assert [(out, status.code) for out, _, status in results] == [
        (f"{n}\n".encode(), n) for n in range(30)
    ]


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/etc/passwd", 126)])
async def test_a_process_that_cannot_be_executed_says_why(
    vm: VmClient, program: str, code: int
) -> None:
    run = await vm.shell(FOREVER)
    await vm.until(run.run_id, Run.STATE_RUNNING)

    _, err, status = await vm.execute(run.run_id, program)
    assert status.code == code
    assert err.startswith(f"lns: {program}: ".encode())


async def test_a_process_without_a_program_is_refused(vm: VmClient) -> None:
    run = await vm.shell(FOREVER)
    with pytest.raises(RequestInvalid):
        await vm.execute(run.run_id)


async def test_a_process_that_leaves_a_child_behind_has_ended_all_the_same(
    vm: VmClient,
) -> None:
    run = await vm.shell(FOREVER)
    await vm.until(run.run_id, Run.STATE_RUNNING)

    out, _, status = await vm.execute(run.run_id, "sh", "-c", "sleep 60 & echo left; exit 1")
    assert (out, status.code) == (b"left\n", 1)


async def test_the_output_of_a_process_waits_for_its_reader(vm: VmClient) -> None:
    run = await vm.shell(FOREVER)
    await vm.until(run.run_id, Run.STATE_RUNNING)
    start = pb.AttachStart(
        run=run.run_id, exec=pb.ExecSpec(argv=["head", "-c", "30000000", "/dev/zero"])
    )
    async with vm.attach(start) as slow:
        out, _, _ = await vm.execute(run.run_id, "echo", "through")
        assert out == b"through\n"
        out, _, status = await slow.rest()

    assert (len(out), status.code) == (30_000_000, 0)


async def test_a_process_outlives_the_client_that_started_it(vm: VmClient, world: VmWorld) -> None:
    run = await vm.shell(FOREVER)
    await vm.until(run.run_id, Run.STATE_RUNNING)
    witness = world.home / "witness"
    script = f"echo up; while :; do echo noise; sleep 0.01; [ -e {world.home}/go ] && break; done; "
    start = pb.AttachStart(
        run=run.run_id, exec=pb.ExecSpec(argv=["sh", "-c", f"{script} echo > {witness}"])
    )
    async with vm.attach(start) as terminal:
        await terminal.until(b"up")
    (world.home / "go").touch()

    await eventually(witness.exists)


UNREADING = "trap 'exit 5' TERM; echo up; while :; do sleep 0.01; done"

MANY_BYTES = 900_000
"""More than pipes and the guest's window hold, as a client that does not wait might send."""


async def fill_input(terminal: Terminal) -> None:
    """Sends more than a process takes that does not read."""
    for _ in range(9):
        await terminal.send(stdin=bytes(MANY_BYTES // 9))


async def test_a_signal_does_not_wait_behind_data_that_nobody_reads(vm: VmClient) -> None:
    run = await vm.shell(UNREADING, options=Options(stdin=True))
    async with vm.attach(attach(run, stdin=True)) as terminal:
        await terminal.until(b"up")
        await fill_input(terminal)
        await terminal.send(signal="TERM")
        _, _, status = await terminal.rest()

    assert status.code == 5


async def test_neither_waits_a_signal_for_a_process_beside_the_workload(vm: VmClient) -> None:
    run = await vm.shell(FOREVER)
    await vm.until(run.run_id, Run.STATE_RUNNING)
    spec = pb.ExecSpec(argv=["sh", "-c", UNREADING])
    async with vm.attach(pb.AttachStart(run=run.run_id, exec=spec, stdin=True)) as terminal:
        await terminal.until(b"up")
        await fill_input(terminal)
        await terminal.send(signal="TERM")
        _, _, status = await terminal.rest()

    assert status.code == 5


async def test_leaving_does_not_wait_behind_data_that_nobody_reads(vm: VmClient) -> None:
    run = await vm.shell(UNREADING, options=Options(stdin=True))
    async with vm.attach(attach(run, stdin=True)) as terminal:
        await terminal.until(b"up")
        await fill_input(terminal)
        await terminal.send(detach=pb.Detach())
        while (answer := await terminal.read()).WhichOneof("message") != "detached":
            assert answer.WhichOneof("message") in ("stdin_ready", "stdin_taken")

    assert (await vm.get(run.run_id)).state == Run.STATE_RUNNING


async def test_a_client_learns_how_much_of_its_input_was_taken(vm: VmClient) -> None:
    run = await vm.shell("head -c 300000 >/dev/null; read x", options=Options(stdin=True))
    async with vm.attach(attach(run, stdin=True)) as terminal:
        for _ in range(3):
            await terminal.send(stdin=bytes(100_000))
        ready = await terminal.read()
        assert ready.stdin_ready == pb.StdinReady(position=0, boot=1)
        taken = 0
        while taken < 200_000:
            taken = (await terminal.read()).stdin_taken
    async with vm.attach(attach(run, stdin=True, replay=False)) as terminal:
        assert (await terminal.read()).stdin_ready == pb.StdinReady(position=300_000, boot=1)


async def test_a_client_that_attaches_brings_the_size_of_its_terminal(vm: VmClient) -> None:
    """The program hears of it also where the size is as it was, and so draws again."""
    script = "trap 'echo redrawn; stty size' WINCH; echo up; while :; do sleep 0.01; done"
    size = run_pb2.TerminalSize(rows=33, columns=101)
    run = await vm.shell(script, options=Options(stdin=True, tty=True, terminal=size))
    async with vm.attach(attach(run)) as terminal:
        await terminal.until(b"up")
    for rows in (33, 20):
        again = pb.AttachStart(
            run=run.run_id,
            stdin=True,
            terminal=run_pb2.TerminalSize(rows=rows, columns=101),
        )
        async with vm.attach(again) as terminal:
            await terminal.until(f"redrawn\r\n{rows} 101".encode())


async def test_a_process_whose_reader_is_gone_gets_a_broken_pipe(
    vm: VmClient, world: VmWorld
) -> None:
    run = await vm.shell(FOREVER)
    await vm.until(run.run_id, Run.STATE_RUNNING)
    spec = pb.ExecSpec(argv=["sh", "-c", "while echo noise; do :; done"])
    async with vm.attach(pb.AttachStart(run=run.run_id, exec=spec)) as terminal:
        await terminal.until(b"noise")
        await terminal.send(output_closed=pb.OutputClosed())
        _, _, status = await terminal.rest()

    assert status.signal == "PIPE"
