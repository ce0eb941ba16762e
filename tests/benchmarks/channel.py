"""The channel of a guest: the host's processor time for what a workload writes and reads.

The guest agent is a process of this machine, so nothing is emulated. What is measured is the
process of vm_runner, from the agent's socket through the log to a client, and back.
"""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from lns.vm.v1 import run_pb2, vm_service_pb2, vm_service_pb2_grpc

from services.chassis.channel import open_channel
from services.chassis.settings import PeerSettings
from tests.benchmarks.harness import (
    Comparison,
    Comparisons,
    Contender,
    Figure,
    Form,
    Quantity,
    Sample,
)
from tests.benchmarks.workspace import new_folder
from tests.support.vm_service import VmClient

pb = vm_service_pb2

_MIB = 1 << 20
_MOVED_MIB = 256
_CHUNK = 256 * 1024
_AHEAD = 2 * _CHUNK
_LIMIT = 0.008 * _MOVED_MIB


def channel() -> Comparisons:
    """What a workload writes and reads, in processor time of the service."""
    with _service() as (pid, home):
        yield Comparison(
            title=f"{_MOVED_MIB} MiB through a guest's channel, agent as a process",
            contenders=[
                Contender(name="output", take=lambda: _take(pid, home, _output)),
                Contender(name="output, nobody attached", take=lambda: _take(pid, home, _logged)),
                Contender(name="input", take=lambda: _take(pid, home, _input)),
            ],
            figures=[
                Figure(contender=name, limit=_LIMIT, form=Form.ABSOLUTE, quantity=Quantity.CPU)
                for name in ("output", "input")
            ],
            work=(_MOVED_MIB, "MiB"),
            notes=["processor time is that of the service's process alone, log included"],
        )


@contextlib.contextmanager
def _service() -> Iterator[tuple[int, Path]]:
    with new_folder() as home:
        command = [sys.executable, "-m", "tests.benchmarks.peers.channel_service", str(home)]
        log = home / "service.log"
        with (
            log.open("wb") as messages,
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages
            ) as process,
        ):
            assert process.stdout is not None
            assert process.stdin is not None
            while (line := process.stdout.readline()) != b"ready\n":
                if not line:
                    raise RuntimeError(f"the service did not start: {log.read_text()[-500:]}")
            try:
                yield process.pid, home
            finally:
                process.stdin.close()
                process.stdout.close()


def _take(pid: int, home: Path, work: Callable[[VmClient], Awaitable[None]]) -> Sample:
    async def run() -> Sample:
        async with open_channel(
            PeerSettings(target=f"unix:{home}/vm.sock"), vm_service_pb2.DESCRIPTOR
        ) as opened:
            client = VmClient(vm_service_pb2_grpc.VmServiceStub(opened))
            before, begin = _cpu_seconds(pid), time.perf_counter()
            await work(client)
            wall = time.perf_counter() - begin
            return Sample(wall=wall, cpu=_cpu_seconds(pid) - before)

    return asyncio.run(run())


def _cpu_seconds(pid: int) -> float:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


async def _output(client: VmClient) -> None:
    run = await client.create("head", "-c", f"{_MOVED_MIB}M", "/dev/zero")
    got = 0
    async with client.attach(pb.AttachStart(run=run.run_id, replay=True)) as terminal:
        while (answer := await terminal.read()).WhichOneof("message") != "exited":
            got += len(answer.stdout)
    assert got == _MOVED_MIB * _MIB, f"{got} bytes came"
    await client.ended(run.run_id)


async def _logged(client: VmClient) -> None:
    run = await client.create("head", "-c", f"{_MOVED_MIB}M", "/dev/zero")
    await client.ended(run.run_id)


async def _input(client: VmClient) -> None:
    options = run_pb2.RunOptions(stdin=True)
    run = await client.create("sh", "-c", "cat > /dev/null", options=options)
    start = pb.AttachStart(run=run.run_id, replay=True, stdin=True)
    chunk = bytes(_CHUNK)
    async with client.attach(start) as terminal:
        sent = taken = 0
        while sent < _MOVED_MIB * _MIB:
            if sent - taken < _AHEAD:
                await terminal.send(stdin=chunk)
                sent += len(chunk)
            elif (answer := await terminal.read()).WhichOneof("message") == "stdin_taken":
                taken = answer.stdin_taken
        await terminal.send(stdin_closed=pb.StdinClosed())
        await terminal.rest()
    await client.ended(run.run_id)
