"""Commands of the user's that print a secret, such as `op read op://vault/item/field`."""

import asyncio
import contextlib
import os
import signal
from typing import Final

from services.core.errors import CredentialUnusable

_SECONDS: Final = 30.0
_MAX_BYTES: Final = 64 * 1024


class ShellCommands:
    """Implements `Commands` with /bin/sh; what a command says beside its output is dropped."""

    def __init__(self, *, seconds: float = _SECONDS) -> None:
        self._seconds = seconds

    async def run(self, command: str) -> str:
        """See `Commands`."""
        transport, running = await asyncio.get_running_loop().subprocess_exec(
            _Running,
            "/bin/sh",
            "-c",
            command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._seconds):
                output = await running.output
        except TimeoutError:
            raise CredentialUnusable(
                f"the command has not ended after {self._seconds:g} seconds",
                hint="run it yourself: it may be waiting for you to unlock something",
            ) from None
        finally:
            _end(transport.get_pid())
            transport.close()
            await running.exited.wait()
        if status := transport.get_returncode():
            raise CredentialUnusable(
                f"the command ended with status {status}",
                hint="run it yourself; the services run it with the environment that they were"
                " started with",
            )
        return _text(output)


class _Running(asyncio.SubprocessProtocol):
    """A command that runs.

    `asyncio.subprocess.Process` is of no use here: its `wait` waits for the end of the output, too,
    which never comes where nobody reads on, or where something that left the session holds it.

    Attributes:
        output: all that it has written, when it and its output have ended.
        exited: set when it has ended.
    """

    def __init__(self) -> None:
        self.output: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.exited = asyncio.Event()
        self._written = bytearray()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keeps what was written, up to a bound."""
        self._written += data
        if len(self._written) > _MAX_BYTES and not self.output.done():
            error = CredentialUnusable(f"the command prints more than {_MAX_BYTES} bytes")
            self.output.set_exception(error)

    def process_exited(self) -> None:
        """Says that it has ended."""
        self.exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Says that nothing more can be written."""
        if not self.output.done():
            self.output.set_result(bytes(self._written))


def _text(output: bytes) -> str:
    try:
        return output.decode()
    except UnicodeDecodeError:
        raise CredentialUnusable("the command's output is not UTF-8") from None


def _end(pid: int) -> None:
    """Ends a command with all that it started, whether it has ended itself or not."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
