"""Logging in on another device: started, polled until a person has agreed, then stored."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Final

from services.core.errors import (
    LimitExceeded,
    LnsError,
    RegistryUnauthenticated,
    RegistryUnavailable,
    RequestInvalid,
)
from services.registry_gateway.login_ports import DeviceCode, DeviceIssuer, StoredLogin
from services.registry_gateway.logins import Logins, registry_host

MAX_PENDING: Final = 32


class DeviceLogins:
    """The device logins that were started and are not over; in memory."""

    def __init__(
        self,
        issuer: DeviceIssuer,
        logins: Logins,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._issuer = issuer
        self._logins = logins
        self._clock = clock
        self._sleep = sleep
        self._pending: dict[str, DeviceCode] = {}

    async def start(self, registry: str) -> tuple[str, DeviceCode]:
        """Starts a login; returns its id and what a person must be shown.

        Raises:
            Unimplemented: the registry advertises no device login.
            LimitExceeded: too many were started and not finished.
        """
        host = registry_host(registry)
        now = self._clock()
        self._pending = {k: code for k, code in self._pending.items() if code.expires > now}
        if len(self._pending) >= MAX_PENDING:
            raise LimitExceeded(f"{MAX_PENDING} device logins are under way already")
        code = await self._issuer.start(host)
        login_id = secrets.token_urlsafe(16)
        self._pending[login_id] = code
        return login_id, code

    async def finish(self, login_id: str) -> StoredLogin:
        """Waits until a person has agreed, stores the login and returns where.

        Raises:
            RegistryUnauthenticated: the login was refused or took too long.
            RequestInvalid: there is no such login.
        """
        code = self._pending.get(login_id)
        if code is None:
            raise RequestInvalid(
                "this device login does not exist or has expired", hint="start it again"
            )
        try:
            stored = await self._wait(code)
        except LnsError:
            self._pending.pop(login_id, None)
            raise
        self._pending.pop(login_id, None)
        return stored

    async def _wait(self, code: DeviceCode) -> StoredLogin:
        while self._clock() < code.expires:
            try:
                credential = await self._issuer.poll(code)
            except RegistryUnavailable:
                credential = None  # the person may still be reading: the next poll may succeed
            if credential is not None:
                return await self._logins.login(code.registry, credential)
            await self._sleep(code.interval)
        raise RegistryUnauthenticated(
            f"the login at {code.registry} took too long",
            hint=f"try again: lns login {code.registry}",
            metadata={"registry": code.registry},
        )
