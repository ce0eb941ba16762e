"""The values of credentials, of a project or its user: fetched when needed, followed for changes.

The vault is the only one that asks commands and issuers. Ten runs that need one value ask once.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from services.core.errors import CredentialUnusable, LnsError, RequestInvalid
from services.core.integrations.definitions import IntegrationDefinition, is_within
from services.vm_runner.credentials.credential import (
    Credential,
    CredentialKey,
    Missing,
    SecretValue,
    Source,
    check_secret,
    parse_output,
)
from services.vm_runner.credentials.ports import Commands, CredentialRecords, TokenIssuer, Tokens

log = structlog.get_logger()

_EARLY: Final = timedelta(seconds=30)
"""How long before its end a value is fetched anew, so that no request is sent with an old one."""

_AGAIN_SECONDS: Final = 30.0
"""How long to wait before a failed fetch is repeated for followers of a credential."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Vault:
    """Stored credentials and their values."""

    def __init__(
        self,
        records: CredentialRecords,
        commands: Commands,
        issuer: TokenIssuer,
        *,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._records = records
        self._commands = commands
        self._issuer = issuer
        self._now = now
        self._cached: dict[CredentialKey, SecretValue] = {}
        self._turns: defaultdict[CredentialKey, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._changed = asyncio.Event()

    # ---- what is stored ----

    async def put_value(
        self, key: CredentialKey, definition: IntegrationDefinition, value: str
    ) -> Credential:
        """Stores a secret.

        Raises:
            RequestInvalid: it cannot be a secret, or the integration uses no secret.
            CredentialUnusable: the keyring takes nothing.
        """
        credential = self._new(key, definition, Source.VALUE)
        return await self._put(replace(credential, secret=check_secret(value)))

    async def put_command(
        self, key: CredentialKey, definition: IntegrationDefinition, command: str
    ) -> Credential:
        """Stores a command, after it has shown that it gives a secret.

        Raises:
            RequestInvalid: the integration has no credential.
            CredentialUnusable: the command gives none.
        """
        credential = self._new(key, definition, Source.COMMAND)
        parse_output(await self._commands.run(command), now=self._now())
        return await self._put(replace(credential, command=command, stored_in="command"))

    async def put_tokens(
        self, key: CredentialKey, definition: IntegrationDefinition, tokens: Tokens
    ) -> Credential:
        """Stores what an issuer gave.

        Raises:
            CredentialUnusable: the keyring takes nothing.
        """
        credential = self._new(key, definition, Source.OAUTH)
        return await self._put(_with_tokens(credential, tokens))

    async def list(self) -> tuple[Credential, ...]:
        """Returns what is stored, by integration and project."""
        return tuple(await self._records.list())

    async def remove(self, key: CredentialKey) -> bool:
        """Forgets a credential; returns whether it was there."""
        removed = await self._records.remove(key)
        self._forget(key)
        return removed

    def _new(
        self, key: CredentialKey, definition: IntegrationDefinition, source: Source
    ) -> Credential:
        if definition.credential is None:
            raise RequestInvalid(f"the integration {definition.id} needs no credential")
        return Credential(
            key=key, source=source, domains=definition.domains, create_time=self._now()
        )

    async def _put(self, credential: Credential) -> Credential:
        stored = await self._records.put(credential)
        self._forget(credential.key)
        return stored

    def _forget(self, key: CredentialKey) -> None:
        self._cached.pop(key, None)
        self._changed.set()
        self._changed = asyncio.Event()

    # ---- values ----

    async def is_connected(self, definition: IntegrationDefinition, project: str) -> bool:
        """Returns whether a stored credential may be sent where the integration sends it."""
        found = await self._find(definition.id, project)
        return found is not None and _may_go(found, definition)

    async def secret(
        self, definition: IntegrationDefinition, project: str
    ) -> SecretValue | Missing:
        """Returns the value of an integration's credential: the project's, else the user's."""
        try:
            credential = await self._find(definition.id, project)
            if credential is None:
                return _missing(definition, "no credential is stored for it")
            if not _may_go(credential, definition):
                domains = ", ".join(definition.domains)
                return _missing(definition, f"it was stored for other hosts than {domains}")
            return await self._value(credential, definition)
        except LnsError as error:
            log.warning("credential_unusable", integration=definition.id, message=error.message)
            return _missing(definition, error.message)

    async def follow(
        self, definition: IntegrationDefinition, project: str
    ) -> AsyncIterator[SecretValue | Missing]:
        """Yields the value now and whenever it changes, ends or is available again; never ends."""
        last: SecretValue | Missing | None = None
        while True:
            changed = self._changed
            found = await self.secret(definition, project)
            if found != last:
                yield found
                last = found
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._holds(found)):
                    await changed.wait()

    async def _find(self, integration: str, project: str) -> Credential | None:
        if project:
            key = CredentialKey(integration=integration, project=project)
            found = await self._records.find(key)
            if found is not None:
                return found
        return await self._records.find(CredentialKey(integration=integration))

    async def _value(
        self, credential: Credential, definition: IntegrationDefinition
    ) -> SecretValue:
        if credential.source is Source.VALUE:
            return SecretValue(credential.secret)
        key = credential.key
        async with self._turns[key]:
            cached = self._cached.get(key)
            if cached is None or not self._is_fresh(cached):
                cached = await self._ask(credential, definition)
                self._cached[key] = cached
            return cached

    async def _ask(self, credential: Credential, definition: IntegrationDefinition) -> SecretValue:
        if credential.source is Source.COMMAND:
            return parse_output(await self._commands.run(credential.command), now=self._now())
        held = SecretValue(credential.access_token, credential.expire_time)
        if held.value and self._is_fresh(held):
            return held
        if definition.oauth is None or not credential.secret:
            raise CredentialUnusable("its authorization has ended and cannot be renewed")
        tokens = await self._issuer.refresh(definition.oauth, credential.secret)
        await self._records.put(_with_tokens(credential, tokens))
        return tokens.access

    def _is_fresh(self, value: SecretValue) -> bool:
        return value.expire_time is None or value.expire_time - _EARLY > self._now()

    def _holds(self, found: SecretValue | Missing) -> float | None:
        """Returns for how many seconds what was found need not be asked for again."""
        if isinstance(found, Missing):
            return _AGAIN_SECONDS
        if found.expire_time is None:
            return None
        left = (found.expire_time - _EARLY - self._now()).total_seconds()
        return max(left, 1.0)


def _with_tokens(credential: Credential, tokens: Tokens) -> Credential:
    return replace(
        credential,
        secret=tokens.refresh or credential.secret,
        access_token=tokens.access.value,
        expire_time=tokens.access.expire_time,
    )


def _may_go(credential: Credential, definition: IntegrationDefinition) -> bool:
    return all(is_within(domain, credential.domains) for domain in definition.domains)


def _missing(definition: IntegrationDefinition, why: str) -> Missing:
    return Missing(
        f"the credential of {definition.id} cannot be used: {why}", f"lns connect {definition.id}"
    )
