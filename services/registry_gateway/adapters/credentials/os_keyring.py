"""Logins in the OS keyring, by registry host."""

from collections.abc import Sequence
from typing import Final

from services.chassis import keyrings
from services.registry_gateway.login_ports import Credential

KEYRING_SERVICE: Final = "lns-registry"


class OsKeyring:
    """Credentials by registry host, kept as `user:secret`; implements `Keyring`."""

    def __init__(self, keyring: keyrings.Keyring) -> None:
        self._keyring = keyring

    def find(self, host: str, repository: str = "") -> Credential | None:
        """See `Keyring`."""
        username, _, secret = (self._keyring.find(host) or "").partition(":")
        return Credential(username=username, secret=secret, stored_in="keyring") if secret else None

    def problems(self, host: str, repository: str = "") -> Sequence[str]:
        """See `Keyring`."""
        return ()

    def put(self, host: str, credential: Credential) -> None:
        """See `Keyring`."""
        self._keyring.put(host, f"{credential.username}:{credential.secret}")

    def remove(self, host: str) -> None:
        """See `Keyring`."""
        self._keyring.remove(host)


def open_keyring() -> OsKeyring | None:
    """Returns the keyring of this machine, or None where it has no usable one."""
    keyring = keyrings.open_keyring(KEYRING_SERVICE)
    return OsKeyring(keyring) if keyring is not None else None
