"""The guest's egress agent in a network of its own, and programs beside it."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

from services.vm_runner.adapters.socket_channel import adopt_socket
from services.vm_runner.channel.session import GuestSession, open_session
from tests.support.guest_agent import require_agent

_NETWORK, _MASK = "c6120000", "fffe0000"
_PROGRAM = """
import socket, sys, struct, errno, time
def name_of(error): return errno.errorcode.get(error.errno or 0, type(error).__name__)
"""


class EgressAgent:
    """A running agent: its session, and what else runs in its network."""

    def __init__(self, session: GuestSession, pid: int) -> None:
        self.session = session
        self._pid = pid

    async def start(self, code: str) -> asyncio.subprocess.Process:
        """Start a Python program in the agent's network."""
        return await asyncio.create_subprocess_exec(
            "nsenter", "-t", str(self._pid), "-n",
            sys.executable, "-c", _PROGRAM + code,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    async def run(self, code: str) -> str:
        """Run a Python program in the agent's network; return what it prints."""
        process = await self.start(code)
        async with asyncio.timeout(30):
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode().strip()


@contextlib.contextmanager
def egress_process() -> Iterator[tuple[int, socket.socket]]:
    """Yield a ready agent, in a network namespace of its own, and the host's end of its port."""
    agent = require_agent()
    ours, theirs = socket.socketpair()
    wanted_read, wanted_write = os.pipe()
    # The agent takes its port as descriptor 3, and 4 to say that it is ready or wants a host.
    script = f"exec {agent} --egress {_NETWORK} {_MASK} 3<&{theirs.fileno()} 4>&{wanted_write}"
    process = subprocess.Popen(
        ["unshare", "--net", "bash", "-c", script],
        pass_fds=[theirs.fileno(), wanted_write],
        stderr=subprocess.PIPE,
    )
    theirs.close()
    os.close(wanted_write)
    try:
        assert os.read(wanted_read, 1) == b"w"
        yield process.pid, ours
    finally:
        ours.close()
        os.close(wanted_read)
        process.kill()
        process.wait()
        if process.stderr:
            print(process.stderr.read().decode())  # noqa: T201 - what a failed test shows
            process.stderr.close()


@contextlib.asynccontextmanager
async def egress_agent() -> AsyncIterator[EgressAgent]:
    """Yield an agent that steers everything, with a session."""
    with egress_process() as (pid, port):
        connection = await adopt_socket(port.dup())
        async with open_session(connection, answer_seconds=10) as session:
            yield EgressAgent(session, pid)
