"""The control socket of a QEMU: one connection for as long as it lasts, commands and events on it.

QEMU serves one client of its socket at a time. The connection is made when it is first needed, and
again when it broke.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

from qemu.qmp import EventListener, QMPClient, QMPError, Runstate

from services.core.errors import GuestUnreachable
from services.vm_runner.adapters.qemu.command_line import QMP_SOCKET
from services.vm_runner.adapters.socket_channel import short_path

_SECONDS = 5.0
_BLOCK_ERROR = "BLOCK_IO_ERROR"


class QemuControl:
    """The control socket of one QEMU.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._client: QMPClient | None = None
        self._connecting = asyncio.Lock()
        self._errors = EventListener(_BLOCK_ERROR)

    async def execute(self, command: str) -> object:
        """Executes a command without arguments and returns what QEMU answers.

        Raises:
            GuestUnreachable: it does not answer.
        """
        try:
            async with asyncio.timeout(_SECONDS):
                return await (await self._connected()).execute(command)
        except (TimeoutError, OSError, QMPError, EOFError) as error:
            await self.leave()
            raise GuestUnreachable(f"QEMU does not answer {command}: {error}") from error

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[QMPClient]:
        """Yields the connection, for what takes several commands; it stays open after the block.

        Raises:
            OSError: QEMU does not listen.
            QMPError: it does not greet.
        """
        yield await self._connected()

    async def wait_out_of_room(self) -> None:
        """Returns when QEMU has stopped the guest at a write for which the disk has no room.

        Raises:
            GuestUnreachable: it does not answer.
        """
        if await self._is_out_of_room():  # it was so before anybody listened
            return
        try:
            async with self.client() as client:
                await self._wait_for_error(client)
        except (OSError, QMPError, EOFError) as error:
            raise GuestUnreachable(f"QEMU cannot be watched: {error}") from error

    async def _wait_for_error(self, client: QMPClient) -> None:
        while True:
            event = asyncio.ensure_future(self._errors.get())
            ended = asyncio.ensure_future(client.runstate_changed())
            try:
                await asyncio.wait({event, ended}, return_when=asyncio.FIRST_COMPLETED)
                if not event.done():
                    raise GuestUnreachable("the connection to QEMU has ended")
            finally:
                for waiting in (event, ended):
                    waiting.cancel()
                await asyncio.gather(event, ended, return_exceptions=True)
            if await self._is_out_of_room():
                return

    async def _is_out_of_room(self) -> bool:
        """Returns whether the guest is stopped for an error of a disk, and forgets earlier ones.

        With QEMU's default `werror=enospc` that is a full disk: other errors are the guest's.
        """
        self._errors.clear()
        status = await self.execute("query-status")
        return isinstance(status, dict) and status.get("status") == "io-error"

    async def _connected(self) -> QMPClient:
        async with self._connecting:
            if self._client is not None and self._client.runstate is Runstate.RUNNING:
                return self._client
            await self.leave()
            client = QMPClient("lns")
            # A refused connection, which is an error there, is a VMM that has just ended.
            client.logger.setLevel(logging.CRITICAL)
            client.register_listener(self._errors)
            with short_path(self.directory / QMP_SOCKET) as path:
                await client.connect(path)
            self._client = client
            return client

    async def leave(self) -> None:
        """Closes the connection; never raises."""
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):  # it has ended however it did
                async with asyncio.timeout(_SECONDS):
                    await client.disconnect()
