"""Credentials in memory, commands and issuers that a test plays; every call suspends."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from services.core.errors import CredentialUnusable
from services.core.integrations.definitions import OAuthClient
from services.core.integrations.user_file import UserFile
from services.vm_runner.boundary.run_credentials import CredentialSource
from services.vm_runner.credentials.credential import Credential, CredentialKey, SecretValue
from services.vm_runner.credentials.integrations import Integrations
from services.vm_runner.credentials.ports import DeviceCode, Tokens
from services.vm_runner.credentials.vault import Vault

START = datetime(2026, 1, 1, tzinfo=UTC)


class Records:
    """Credentials in memory; every call suspends."""

    def __init__(self) -> None:
        self.kept: dict[CredentialKey, Credential] = {}

    async def list(self) -> Sequence[Credential]:
        await asyncio.sleep(0)
        return list(self.kept.values())

    async def find(self, key: CredentialKey) -> Credential | None:
        await asyncio.sleep(0)
        return self.kept.get(key)

    async def put(self, credential: Credential) -> Credential:
        await asyncio.sleep(0)
        self.kept[credential.key] = credential
        return credential

    async def remove(self, key: CredentialKey) -> bool:
        await asyncio.sleep(0)
        return self.kept.pop(key, None) is not None


class Commands:
    """Counts runs; each gives another value."""

    def __init__(self) -> None:
        self.runs = 0
        self.fails = False

    async def run(self, command: str) -> str:
        await asyncio.sleep(0)
        self.runs += 1
        if self.fails:
            raise CredentialUnusable("the command ended with status 1")
        return f"{command}-{self.runs}\n"


class Issuer:
    """Gives a new access token for each refresh."""

    def __init__(self, clock: "Clock") -> None:
        self.refreshed: list[str] = []
        self._clock = clock

    async def start(self, client: OAuthClient) -> DeviceCode:
        raise NotImplementedError

    async def poll(self, client: OAuthClient, code: DeviceCode) -> Tokens | None:
        raise NotImplementedError

    async def refresh(self, client: OAuthClient, refresh_token: str) -> Tokens:
        await asyncio.sleep(0)
        self.refreshed.append(refresh_token)
        count = len(self.refreshed)
        ends = self._clock.now + timedelta(hours=1)
        return Tokens(access=SecretValue(f"access-{count}", ends), refresh=f"refresh-{count}")


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class Documents:
    """A user's integrations in memory."""

    name = "~/.lns-integrations.yaml"

    def __init__(self) -> None:
        self.kept: dict[str, Mapping[str, Any]] = {}

    async def read(self) -> UserFile:
        await asyncio.sleep(0)
        return UserFile(documents=dict(self.kept))

    async def put(self, identifier: str, document: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        self.kept[identifier] = document

    async def remove(self, identifier: str) -> bool:
        await asyncio.sleep(0)
        return self.kept.pop(identifier, None) is not None


def credential_source() -> CredentialSource:
    """Return a source without credentials and integrations of a user's own."""
    return CredentialSource(
        integrations=Integrations(Documents()), vault=Vault(Records(), Commands(), Issuer(Clock()))
    )
