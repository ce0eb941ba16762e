"""Uploads that were begun, kept on the disk so that a gateway that died can go on with them.

One file for each, named by the hash of registry, repository and blob. What is written is where the
registry said that the upload goes on, and how many bytes it has: no credential.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.chassis.durable import write_bytes
from services.registry_gateway.ports import UploadSession

_KEPT_SECONDS: Final = 7 * 24 * 3600.0
_MAX_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadSessionFiles:
    """The files below one directory; implements `UploadSessions`. Used in threads."""

    directory: Path
    now: Callable[[], float] = time.time

    def load(self, key: str) -> UploadSession | None:
        """See `UploadSessions`."""
        try:
            with self._path(key).open("rb") as file:
                value = json.loads(file.read(_MAX_BYTES))
            if value["key"] != key or self.now() - value["time"] > _KEPT_SECONDS:
                return None
            return UploadSession(location=str(value["location"]), offset=int(value["offset"]))
        except (OSError, ValueError, LookupError, TypeError):
            return None  # not there, or half of one: the blob begins anew

    def save(self, key: str, session: UploadSession) -> None:
        """See `UploadSessions`."""
        value = {
            "key": key,
            "location": session.location,
            "offset": session.offset,
            "time": self.now(),
        }
        self.directory.mkdir(mode=0o700, exist_ok=True)
        write_bytes(self._path(key), json.dumps(value).encode("utf-8"), mode=0o600)

    def drop(self, key: str) -> None:
        """See `UploadSessions`."""
        self._path(key).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes what is too old to be of use."""
        with contextlib.suppress(FileNotFoundError):
            for path in self.directory.iterdir():
                if self.now() - path.stat().st_mtime > _KEPT_SECONDS:
                    path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self.directory / hashlib.sha256(key.encode("utf-8")).hexdigest()
