"""The secrets that a worker holds: given before a connection that needs one, taken back in time."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from services.core.egress.hosts import Host
from services.vm_runner.boundary.run_credentials import RunCredentials
from services.vm_runner.egress_worker.orders import Secret, ToWorker


class HeldSecrets:
    """The secrets of one worker.

    Args:
        credentials: of its run.
        send: sends to the worker.
        begin: starts a task that ends with the link.
    """

    def __init__(
        self,
        credentials: RunCredentials,
        send: Callable[[ToWorker], Awaitable[None]],
        begin: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._credentials = credentials
        self._send = send
        self._begin = begin
        self._held: dict[str, asyncio.Task[None]] = {}

    async def hold_for(self, host: Host) -> None:
        """Sends the worker the secrets that go to a host, before it gets a connection there."""
        for one in await self._credentials.for_host(host):
            if one.id in self._held:
                continue
            held = asyncio.Event()
            self._held[one.id] = self._begin(self._credentials.follow(one, self._send, held))
            await held.wait()

    async def give_back(self) -> None:
        """Takes from the worker the secrets that the policy does not permit any more."""
        for identifier, following in list(self._held.items()):
            if not await self._credentials.may_use(identifier):
                del self._held[identifier]
                following.cancel()
                await self._send(Secret(credential=identifier))
