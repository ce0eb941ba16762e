"""Authorizations on another device: begun, polled until the user has agreed, then stored."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from services.core.errors import CredentialUnusable, LimitExceeded, RequestInvalid
from services.core.integrations.definitions import IntegrationDefinition, OAuthClient
from services.vm_runner.credentials.credential import Credential, CredentialKey
from services.vm_runner.credentials.ports import DeviceCode, TokenIssuer
from services.vm_runner.credentials.vault import Vault

MAX_PENDING: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    key: CredentialKey
    definition: IntegrationDefinition
    client: OAuthClient
    code: DeviceCode
    ends: float


class Authorizations:
    """The authorizations that were begun and are not over; in memory."""

    def __init__(
        self,
        issuer: TokenIssuer,
        vault: Vault,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._issuer = issuer
        self._vault = vault
        self._clock = clock
        self._sleep = sleep
        self._pending: dict[str, _Pending] = {}

    async def start(
        self, key: CredentialKey, definition: IntegrationDefinition
    ) -> tuple[str, DeviceCode]:
        """Begins an authorization; returns its id and what the user must be shown.

        Raises:
            RequestInvalid: the integration has no OAuth.
            CredentialUnusable: its issuer refuses, or cannot be reached.
            LimitExceeded: too many were begun and not finished.
        """
        if definition.oauth is None:
            raise RequestInvalid(
                f"{definition.id} is connected with a key or token, not on another device",
                hint=f"lns connect {definition.id}",
            )
        self._pending = {k: one for k, one in self._pending.items() if one.ends > self._clock()}
        if len(self._pending) >= MAX_PENDING:
            raise LimitExceeded(f"{MAX_PENDING} authorizations are under way already")
        code = await self._issuer.start(definition.oauth)
        identifier = secrets.token_urlsafe(16)
        self._pending[identifier] = _Pending(
            key=key,
            definition=definition,
            client=definition.oauth,
            code=code,
            ends=self._clock() + code.expires_in,
        )
        return identifier, code

    async def finish(self, identifier: str) -> Credential:
        """Waits until the user has agreed, and stores the credential.

        Raises:
            RequestInvalid: no authorization has this id.
            CredentialUnusable: it was refused or took too long.
        """
        pending = self._pending.get(identifier)
        if pending is None:
            raise RequestInvalid("no authorization has this id", hint="start it again")
        try:
            while self._clock() < pending.ends:
                tokens = await self._issuer.poll(pending.client, pending.code)
                if tokens is not None:
                    return await self._vault.put_tokens(pending.key, pending.definition, tokens)
                await self._sleep(pending.code.interval)
        except CredentialUnusable:
            self._pending.pop(identifier, None)
            raise
        self._pending.pop(identifier, None)
        raise CredentialUnusable(
            f"no user agreed to connect {pending.definition.id} in time",
            hint=f"start it again: lns connect {pending.definition.id}",
        )
