"""One suite for a state directory: a lock that a starting suite waits for, but not for long."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

from services.chassis.durable import write_bytes
from services.chassis.locks import owner_lock
from services.core.errors import InUse

_POLL_SECONDS = 0.05


@contextlib.asynccontextmanager
async def suite_ownership(lock: Path, listening: Path, *, patience: float) -> AsyncIterator[None]:
    """Holds `lock` while the block runs: nobody else opens the stores of this state directory.

    A suite that drains still holds it, and is waited for. One that serves will not give it up, so
    that a second starter fails at once.

    Args:
        lock: the lock file.
        listening: the socket at which a serving suite answers.
        patience: seconds to wait for a suite that drains.

    Raises:
        InUse: another suite serves, or did not end in time.
    """
    deadline = time.monotonic() + patience
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(owner_lock(lock, what=f"the state directory of {lock}"))
                break
            except InUse:
                if is_listening(listening) or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_POLL_SECONDS)
        yield


def is_listening(path: Path) -> bool:
    """Says whether a process listens at a unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect(str(path))
        except OSError:
            return False
    return True


def announce(path: Path, *, pid: int, version: str) -> None:
    """Writes which process serves and in which version, for clients of other versions."""
    write_bytes(path, f"{pid} {version}\n".encode("ascii"), mode=0o600)
