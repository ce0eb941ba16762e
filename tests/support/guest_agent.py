"""The guest agent as a prerequisite of tests, and a bare connection to one."""

import contextlib
import os
import platform
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from services.vm_runner.adapters.boot_files.cache import default_agent
from services.vm_runner.adapters.socket_channel import adopt_socket
from services.vm_runner.architectures import Architecture
from services.vm_runner.channel.session import GuestSession, open_session
from tests.support.prerequisites import Prerequisite, missing

ROOT = Path(__file__).parents[2]
ENV = ("PATH=/usr/local/bin:/usr/bin:/bin",)


def require_agent() -> Path:
    """Return the agent's program, or end the test."""
    agent = default_agent(ROOT / "services" / "vm_runner", Architecture(platform.machine()))
    if platform.system() != "Linux" or not agent.exists():
        missing(Prerequisite.QEMU, f"{agent} is not built (make guest-agent)")
    return agent


def agent_command(agent: Path, channel: socket.socket) -> list[str]:
    """Return the command line of an agent whose processes end with it, as those of a machine do."""
    own_user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    apart = ["unshare", *own_user, "--pid", "--fork", "--kill-child"]
    return [*apart, str(agent), "--channel", str(channel.fileno())]


@contextlib.contextmanager
def running_agent() -> Iterator[socket.socket]:
    """Yield a socket to an agent that runs as an ordinary process."""
    ours, theirs = socket.socketpair()
    agent = subprocess.Popen(
        agent_command(require_agent(), theirs),
        pass_fds=[theirs.fileno()],
        stderr=subprocess.DEVNULL,
    )
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        agent.kill()
        agent.wait()


@contextlib.asynccontextmanager
async def agent_session() -> AsyncIterator[GuestSession]:
    """Yield a session with an agent that runs as an ordinary process."""
    with running_agent() as sock:
        connection = await adopt_socket(sock.dup())
        async with open_session(connection, answer_seconds=10) as session:
            yield session
