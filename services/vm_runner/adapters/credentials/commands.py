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
        process = await asyncio.create_subprocess_exec(
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
                output = await self._read(process)
                status = await process.wait()
        except TimeoutError:
            raise CredentialUnusable(
                f"the command has not ended after {self._seconds:g} seconds",
                hint="run it yourself: it may be waiting for you to unlock something",
            ) from None
        finally:
            _end(process)
            await process.wait()
        if status:
            raise CredentialUnusable(
                f"the command ended with status {status}",
                hint="run it yourself; the services run it with the environment that they were"
                " started with",
            )
        return output

    @staticmethod
    async def _read(process: asyncio.subprocess.Process) -> str:
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        output = bytearray()
        while chunk := await process.stdout.read(_MAX_BYTES):
            output += chunk
            if len(output) > _MAX_BYTES:
                raise CredentialUnusable(f"the command prints more than {_MAX_BYTES} bytes")
        try:
            return output.decode()
        except UnicodeDecodeError:
            raise CredentialUnusable("the command's output is not UTF-8") from None


def _end(process: asyncio.subprocess.Process) -> None:
    """Ends a command with all that it started, whether it has ended itself or not."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
