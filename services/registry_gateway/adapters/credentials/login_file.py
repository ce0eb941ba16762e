"""The gateway's own logins: one file, mode 0600, and the OS keyring where that is asked for.

    {"version": 1, "logins": {"host": {"username": "…", "secret": "…"}}}

An entry without `secret` says that the keyring has it. The file is replaced as a whole, by turns
(`<file>.lock`), and never reached through a symbolic link.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from services.chassis.secret_files import SecretFile
from services.registry_gateway.adapters.credentials.os_keyring import KEYRING_SERVICE
from services.registry_gateway.login_ports import Credential, Keyring, StoredLogin


class LoginFile:
    """Logins that `lns login` made; implements `LoginStore` and `CredentialSource`."""

    def __init__(self, path: Path, keyring: Keyring | None, *, prefer_keyring: bool) -> None:
        """Touches nothing yet.

        Args:
            path: the file.
            keyring: the OS keyring, or None on a machine without one.
            prefer_keyring: whether new secrets go there.
        """
        self._path = path
        self._file = SecretFile(
            path,
            member="logins",
            version=1,
            is_entry=_is_entry,
            what="logins",
            variable="LNS_REGISTRY_AUTH_PATH",
            remedy="move it away and log in again",
        )
        self._keyring = keyring
        self._prefer_keyring = prefer_keyring and keyring is not None

    def find(self, host: str, repository: str = "") -> Credential | None:
        """See `CredentialSource`; a login is for all repositories of its host.

        Raises:
            SettingsInvalid: the file cannot be trusted or read.
        """
        entry = self._file.read().get(host)
        if entry is None or "secret" not in entry:
            return None
        return Credential(username=entry["username"], secret=entry["secret"], stored_in="file")

    def problems(self, host: str, repository: str = "") -> Sequence[str]:
        """See `CredentialSource`."""
        return ()

    def put(self, host: str, credential: Credential) -> StoredLogin:
        """See `LoginStore`."""
        entry = {"username": credential.username}
        if self._prefer_keyring and self._keyring is not None:
            self._keyring.put(host, credential)
        else:
            entry["secret"] = credential.secret
        self._file.change(lambda logins: logins.update({host: entry}))
        return self._described(host, entry)

    def remove(self, host: str) -> bool:
        """See `LoginStore`."""
        entry = self._file.read().get(host)
        if entry is None:
            return False
        if "secret" not in entry and self._keyring is not None:
            self._keyring.remove(host)
        self._file.change(lambda logins: logins.pop(host, None))
        return True

    def list_logins(self) -> Sequence[StoredLogin]:
        """See `LoginStore`."""
        return [self._described(host, entry) for host, entry in sorted(self._file.read().items())]

    def _described(self, host: str, entry: Mapping[str, str]) -> StoredLogin:
        in_file = "secret" in entry
        return StoredLogin(
            registry=host,
            username=entry["username"],
            stored_in="file" if in_file else "keyring",
            location=str(self._path) if in_file else f"the keyring, service {KEYRING_SERVICE}",
        )


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("username"), str)
        and isinstance(entry.get("secret", ""), str)
    )
