"""The keyring of the desktop or server, where one is unlocked and usable."""

from types import ModuleType
from typing import Final

import structlog

from services.registry_gateway.login_ports import Credential

log = structlog.get_logger()

_SERVICE: Final = "lns-registry"


class OsKeyring:
    """Credentials by registry host, kept as `user:secret`; implements `Keyring`."""

    def __init__(self, module: ModuleType) -> None:
        self._keyring = module

    def find(self, host: str, repository: str = "") -> Credential | None:
        """See `Keyring`."""
        try:
            text: str | None = self._keyring.get_password(_SERVICE, host)
        except self._keyring.errors.KeyringError as error:
            log.warning("keyring_failed", error=type(error).__name__)
            return None
        username, _, secret = (text or "").partition(":")
        return Credential(username=username, secret=secret, stored_in="keyring") if secret else None

    def put(self, host: str, credential: Credential) -> None:
        """See `Keyring`."""
        self._keyring.set_password(_SERVICE, host, f"{credential.username}:{credential.secret}")

    def remove(self, host: str) -> None:
        """See `Keyring`."""
        try:
            self._keyring.delete_password(_SERVICE, host)
        except self._keyring.errors.KeyringError as error:
            log.warning("keyring_failed", error=type(error).__name__)


def open_keyring() -> OsKeyring | None:
    """Returns the keyring of this machine, or None where there is none."""
    # Late: it looks for desktop services when it is imported, which few servers have.
    import keyring  # noqa: PLC0415
    import keyring.errors  # noqa: PLC0415  # see above

    backend = keyring.get_keyring()
    if getattr(backend, "priority", 0) < 1:
        return None
    return OsKeyring(keyring)
