"""The gateway's own logins: one file, mode 0600, and the OS keyring where that is asked for.

    {"version": 1, "logins": {"host": {"username": "…", "secret": "…"}}}

An entry without `secret` says that the keyring has it. The file is replaced as a whole, by turns
(`<file>.lock`), and never reached through a symbolic link.
"""

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from services.chassis.durable import write_bytes
from services.core.errors import SettingsInvalid
from services.registry_gateway.login_ports import Credential, Keyring, StoredLogin

_MAX_BYTES: Final = 1 << 20
_VERSION: Final = 1


class LoginFile:
    """Logins that `lns login` made; implements `LoginStore` and `CredentialSource`."""

    def __init__(self, path: Path, keyring: Keyring | None, *, prefer_keyring: bool) -> None:
        """Touches nothing yet.

        Args:
            path: the file.
            keyring: the OS keyring, or None where there is none.
            prefer_keyring: whether new secrets go there.
        """
        self._path = path
        self._keyring = keyring
        self._prefer_keyring = prefer_keyring and keyring is not None

    def find(self, host: str, repository: str = "") -> Credential | None:
        """See `CredentialSource`; a login is for all repositories of its host.

        Raises:
            SettingsInvalid: the file cannot be trusted or read.
        """
        entry = self._read().get(host)
        if entry is None or "secret" not in entry:
            return None
        return Credential(username=entry["username"], secret=entry["secret"], stored_in="file")

    def put(self, host: str, credential: Credential) -> str:
        """See `LoginStore`."""
        if self._prefer_keyring and self._keyring is not None:
            self._keyring.put(host, credential)
            self._change(lambda logins: logins.update({host: {"username": credential.username}}))
            return "keyring"
        entry = {"username": credential.username, "secret": credential.secret}
        self._change(lambda logins: logins.update({host: entry}))
        return "file"

    def remove(self, host: str) -> bool:
        """See `LoginStore`."""
        entry = self._read().get(host)
        if entry is None:
            return False
        if "secret" not in entry and self._keyring is not None:
            self._keyring.remove(host)
        self._change(lambda logins: logins.pop(host, None))
        return True

    def list_logins(self) -> Sequence[StoredLogin]:
        """See `LoginStore`."""
        return [
            StoredLogin(
                registry=host,
                username=entry["username"],
                stored_in="file" if "secret" in entry else "keyring",
            )
            for host, entry in sorted(self._read().items())
        ]

    def _change(self, change: Callable[[dict[str, Any]], object]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked():
            logins = dict(self._read())
            change(logins)
            text = json.dumps({"version": _VERSION, "logins": logins}, indent=2, sort_keys=True)
            write_bytes(self._path, (text + "\n").encode("utf-8"), mode=0o600)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self._path.with_name(f"{self._path.name}.lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> Mapping[str, dict[str, str]]:
        raw = self._read_bytes()
        if raw is None:
            return {}
        try:
            document = json.loads(raw)
            version, logins = document["version"], document["logins"]
            usable = version == _VERSION and all(_is_entry(entry) for entry in logins.values())
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            usable, logins = False, {}
        if not usable:
            raise SettingsInvalid(
                f"{self._path} is not a file of logins of this lns",
                hint="move it away and log in again",
            )
        checked: Mapping[str, dict[str, str]] = logins
        return checked

    def _read_bytes(self) -> bytes | None:
        try:
            # Without O_NONBLOCK a FIFO in its place would be waited for.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._path, flags)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise SettingsInvalid(
                    f"{self._path} is a symbolic link; logins are never kept behind one",
                    hint="name the file itself in LNS_REGISTRY_AUTH_PATH",
                ) from error
            raise SettingsInvalid(f"{self._path} cannot be read: {error.strerror}") from error
        try:
            self._check_owner(os.fstat(descriptor))
            return os.read(descriptor, _MAX_BYTES)
        finally:
            os.close(descriptor)

    def _check_owner(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise SettingsInvalid(f"{self._path} is not a file of yours")
        if status.st_mode & 0o077:
            raise SettingsInvalid(
                f"{self._path} can be read by others", hint=f"chmod 600 {self._path}"
            )


def _is_entry(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("username"), str)
        and isinstance(entry.get("secret", ""), str)
    )
