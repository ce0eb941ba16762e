"""What logging in needs from the world: where credentials are kept, who checks and issues them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a registry is shown; never logged, never part of an error.

    Attributes:
        username: user name; empty where `secret` is an identity token.
        secret: password, access token or identity token.
        stored_in: where it is kept: `file`, `keyring`, `docker`, `auth.json`.
    """

    username: str
    secret: str
    stored_in: str = ""

    @property
    def is_identity_token(self) -> bool:
        """Whether the secret is a refresh token rather than a password."""
        return not self.username

    def __repr__(self) -> str:
        return f"Credential(username={self.username!r}, secret=…, stored_in={self.stored_in!r})"


class CredentialSource(Protocol):
    """Finds what a registry is shown; used in threads."""

    def find(self, host: str, repository: str = "") -> Credential | None:
        """Returns what a registry is shown for a repository, or None.

        Args:
            host: the registry, with its port where it has one.
            repository: the path in it; empty for the registry as a whole.
        """

    def problems(self, host: str, repository: str = "") -> Sequence[str]:
        """Returns what kept the source from an answer, for a person: broken files, helpers."""


class Credentials(CredentialSource, Protocol):
    """A source that may remember its answers."""

    def forget(self, host: str) -> None:
        """Looks anew the next time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLogin:
    """A registry that lns has a login for; without its secret."""

    registry: str
    username: str
    stored_in: str
    location: str = ""
    """Where that is: the path of the file, or the service of the keyring."""


class Keyring(Protocol):
    """The OS keyring; used in threads."""

    def find(self, host: str, repository: str = "") -> Credential | None:
        """Returns the credential for a host, whatever the repository, or None."""

    def problems(self, host: str, repository: str = "") -> Sequence[str]:
        """Returns what kept the keyring from an answer, for a person."""

    def put(self, host: str, credential: Credential) -> None:
        """Stores the credential for a host."""

    def remove(self, host: str) -> None:
        """Forgets the credential for a host."""


class LoginStore(Protocol):
    """Logins that lns keeps itself; used in threads.

    Every call may raise SettingsInvalid: the file cannot be trusted or read.
    """

    def put(self, host: str, credential: Credential) -> StoredLogin:
        """Stores a login and returns it without its secret."""

    def remove(self, host: str) -> bool:
        """Forgets a login; says whether there was one."""

    def list_logins(self) -> Sequence[StoredLogin]:
        """Returns the logins, sorted by host."""


class LoginCheck(Protocol):
    """Shows registries credentials to see whether they are good."""

    async def verify(self, host: str, credential: Credential) -> None:
        """Returns if a registry accepts a credential.

        Raises:
            RegistryUnauthenticated: it does not.
            RequestInvalid: it asks for none.
        """

    def forget(self, host: str) -> None:
        """Drops tokens and challenges of a registry: its login changed."""


@dataclass(slots=True, kw_only=True)
class DeviceCode:
    """A device login that was started; `interval` grows when the issuer asks for it.

    Attributes:
        registry: host of the registry.
        device_code: names the login to the issuer; secret.
        user_code: what a person enters.
        verification_uri: where a person enters it.
        token_endpoint: where the login is asked for.
        interval: seconds between two questions.
        expires_in: seconds that it is good for, from its start.
        expires: when that is over, by the monotonic clock.
    """

    registry: str
    device_code: str = field(repr=False)
    user_code: str
    verification_uri: str
    token_endpoint: str
    interval: float
    expires_in: float
    expires: float

    def slow_down(self) -> None:
        """Asks less often from now on (RFC 8628, section 3.5)."""
        self.interval += 5.0


class DeviceIssuer(Protocol):
    """The issuer of a registry's device logins."""

    async def start(self, host: str) -> DeviceCode:
        """Starts a login.

        Raises:
            Unimplemented: the registry advertises none.
        """

    async def poll(self, code: DeviceCode) -> Credential | None:
        """Returns the credential of a login, or None while nobody has agreed.

        Raises:
            RegistryUnauthenticated: it was refused or is too old.
        """
