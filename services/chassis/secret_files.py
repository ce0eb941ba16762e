"""Files with secrets of the user's: one JSON document, mode 0600, replaced as a whole by turns.

Such a file is never reached through a symbolic link, and never read when another user owns it or
can read it. What is not this version's is refused, and thus never overwritten.
"""

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from services.chassis.durable import write_bytes
from services.core.errors import SettingsInvalid

_MAX_BYTES: Final = 1 << 20


class SecretFile:
    """One file: `{"version": 1, <member>: {key: entry}}`.

    Args:
        path: the file; it need not exist.
        member: the name of its one member beside `version`.
        version: of its layout.
        is_entry: says whether a value is an entry of this version.
        what: what it holds, for users: `logins`.
        variable: the environment variable that names the file, for users.
        remedy: what to do about a file that is not one.
    """

    def __init__(
        self,
        path: Path,
        *,
        member: str,
        version: int,
        is_entry: Callable[[object], bool],
        what: str,
        variable: str,
        remedy: str,
    ) -> None:
        self.path = path
        self._member = member
        self._version = version
        self._is_entry = is_entry
        self._what = what
        self._variable = variable
        self._remedy = remedy

    def read(self) -> dict[str, Any]:
        """Returns the entries; none for a file that does not exist.

        Raises:
            SettingsInvalid: the file cannot be trusted or read.
        """
        raw = self._read_bytes()
        if raw is None:
            return {}
        try:
            document = json.loads(raw)
            version, entries = document["version"], document[self._member]
            usable = version == self._version and all(map(self._is_entry, entries.values()))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            usable, entries = False, {}
        if not usable:
            raise SettingsInvalid(
                f"{self.path} is not a file of {self._what} of this lns", hint=self._remedy
            )
        return dict(entries)

    def change(self, change: Callable[[dict[str, Any]], object]) -> None:
        """Changes the entries durably, one change at a time, also of several processes.

        Raises:
            SettingsInvalid: the file cannot be trusted or read; it is as it was.
            OSError: it cannot be written; it is as it was.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._locked():
            entries = self.read()
            change(entries)
            document = {"version": self._version, self._member: entries}
            text = json.dumps(document, indent=2, sort_keys=True)
            write_bytes(self.path, (text + "\n").encode("utf-8"), mode=0o600)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self.path.with_name(f"{self.path.name}.lock")
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read_bytes(self) -> bytes | None:
        try:
            # Without O_NONBLOCK a FIFO in its place would be waited for.
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self.path, flags)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise SettingsInvalid(
                    f"{self.path} is a symbolic link; {self._what} are never kept behind one",
                    hint=f"name the file itself in {self._variable}",
                ) from error
            raise SettingsInvalid(f"{self.path} cannot be read: {error.strerror}") from error
        try:
            self._check_owner(os.fstat(descriptor))
            return os.read(descriptor, _MAX_BYTES)
        finally:
            os.close(descriptor)

    def _check_owner(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise SettingsInvalid(f"{self.path} is not a file of yours")
        if status.st_mode & 0o077:
            raise SettingsInvalid(
                f"{self.path} can be read by others", hint=f"chmod 600 {self.path}"
            )
