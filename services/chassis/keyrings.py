"""The keyring of the desktop or server, where one is unlocked and usable."""

from types import ModuleType
from typing import Protocol

import structlog

from services.core.errors import CredentialUnusable

log = structlog.get_logger()


class Keyring(Protocol):
    """Secrets by name. A keyring that is locked has none."""

    def find(self, name: str) -> str | None:
        """Returns a secret, or None."""
        ...

    def put(self, name: str, secret: str) -> None:
        """Keeps a secret.

        Raises:
            CredentialUnusable: it takes nothing, since it is locked for example.
        """
        ...

    def remove(self, name: str) -> None:
        """Forgets a secret, if it exists."""
        ...


class OsKeyring:
    """Secrets of one service in the OS keyring; implements `Keyring`."""

    def __init__(self, module: ModuleType, *, service: str) -> None:
        self._keyring = module
        self._service = service

    def find(self, name: str) -> str | None:
        """See `Keyring`."""
        try:
            found: str | None = self._keyring.get_password(self._service, name)
        except self._keyring.errors.KeyringError as error:
            log.warning("keyring_failed", error=type(error).__name__)
            return None
        return found

    def put(self, name: str, secret: str) -> None:
        """See `Keyring`."""
        try:
            self._keyring.set_password(self._service, name, secret)
        except self._keyring.errors.KeyringError as error:
            raise CredentialUnusable(
                f"the OS keyring takes no secret: {type(error).__name__}",
                hint="unlock it, or keep secrets in the file: docs/configuration.md",
            ) from error

    def remove(self, name: str) -> None:
        """See `Keyring`."""
        try:
            self._keyring.delete_password(self._service, name)
        except self._keyring.errors.KeyringError as error:
            log.warning("keyring_failed", error=type(error).__name__)


def open_keyring(service: str) -> OsKeyring | None:
    """Returns the keyring of this machine, or None where it has no usable one."""
    # Late: it looks for desktop services when it is imported, which few servers have.
    import keyring  # noqa: PLC0415
    import keyring.errors  # noqa: PLC0415  # see above

    if getattr(keyring.get_keyring(), "priority", 0) < 1:
        return None
    return OsKeyring(keyring, service=service)
