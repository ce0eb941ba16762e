"""What the credentials need from outside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from services.core.integrations.definitions import OAuthClient
from services.core.integrations.user_file import UserFile
from services.vm_runner.credentials.credential import Credential, CredentialKey, SecretValue


class CredentialRecords(Protocol):
    """Stored credentials. Everything raises SettingsInvalid where the file cannot be trusted."""

    async def list(self) -> Sequence[Credential]:
        """Returns every credential, by integration and project, with its secret."""
        ...

    async def find(self, key: CredentialKey) -> Credential | None:
        """Returns a credential with its secret.

        Raises:
            CredentialUnusable: its keyring is locked.
        """
        ...

    async def put(self, credential: Credential) -> Credential:
        """Stores a credential durably; returns it with where its secret is.

        Raises:
            CredentialUnusable: the keyring takes nothing.
        """
        ...

    async def remove(self, key: CredentialKey) -> bool:
        """Forgets a credential; returns whether it was there."""
        ...


class IntegrationRecords(Protocol):
    """The user's own integrations and prices."""

    @property
    def name(self) -> str:
        """Name of the file, for users."""
        ...

    async def read(self) -> UserFile:
        """Returns what the file says.

        Raises:
            ArtifactInvalid: the file is not one.
        """
        ...

    async def put(self, identifier: str, document: Mapping[str, Any]) -> None:
        """Stores a document durably, in the place of one with its id."""
        ...

    async def remove(self, identifier: str) -> bool:
        """Removes a document; returns whether it was there."""
        ...


class Commands(Protocol):
    """Commands of the user's that print a secret."""

    async def run(self, command: str) -> str:
        """Returns what a command printed, at most 64 KiB.

        Raises:
            CredentialUnusable: it failed, printed more, or took longer than 30 seconds.
        """
        ...


@dataclass(slots=True, kw_only=True)
class DeviceCode:
    """A device authorization that has begun; `interval` in seconds grows when asked to."""

    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    interval: float
    expires_in: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What an issuer gave: an access token, and perhaps a (new) refresh token."""

    access: SecretValue
    refresh: str = field(default="", repr=False)


class TokenIssuer(Protocol):
    """The OAuth issuers of integrations."""

    async def start(self, client: OAuthClient) -> DeviceCode:
        """Begins a device authorization.

        Raises:
            CredentialUnusable: the issuer refuses, or cannot be reached.
        """
        ...

    async def poll(self, client: OAuthClient, code: DeviceCode) -> Tokens | None:
        """Asks once for the tokens; None while the user has not agreed.

        Raises:
            CredentialUnusable: it was refused, has expired, or the issuer answers nonsense.
        """
        ...

    async def refresh(self, client: OAuthClient, refresh_token: str) -> Tokens:
        """Returns new tokens.

        Raises:
            CredentialUnusable: the issuer refuses, or cannot be reached.
        """
        ...
