"""An egress worker as the process that it is, between a fake agent and a fake runner."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from services.vm_runner.egress_worker.orders import Configure
from tests.fakes.egress_agent import FakeAgent
from tests.support.egress_world import FakeRunner

NOBODY = 65534


@dataclass(frozen=True)
class Started:
    """A worker's process and its surroundings."""

    process: subprocess.Popen[bytes]
    agent: FakeAgent
    runner: FakeRunner


@contextlib.asynccontextmanager
async def egress_process(directory: Path) -> AsyncIterator[Started]:
    """Starts a worker and yields it; it is killed at the end."""
    ours, theirs = socket.socketpair()
    path = directory / "egress.sock"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    listener.listen(4)
    with listener, ours:
        process = _start(directory, (ours.fileno(), listener.fileno()))
    assert process.stdout is not None
    try:
        answer = await asyncio.to_thread(process.stdout.read)
        assert answer == b"ready", answer
        async with FakeAgent(theirs) as agent:
            runner = FakeRunner(path, trustme.CA())
            await runner.connect()
            runner.say(Configure(run="test"))
            yield Started(process, agent, runner)
            await runner.disconnect()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _start(directory: Path, given: tuple[int, int]) -> subprocess.Popen[bytes]:
    command = [
        sys.executable, "-m", "services.vm_runner.egress_worker",
        "--name", "lns-test-egress",
        "--directory", str(directory),
        "--pid-file", "egress.pid",
        "--port-descriptor", str(given[0]),
        "--control-descriptor", str(given[1]),
    ]  # fmt: skip
    if os.geteuid() == 0:
        command += ["--uid", str(NOBODY), "--gid", str(NOBODY)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=given)
