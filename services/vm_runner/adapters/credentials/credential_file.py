"""The user's credentials: one file, mode 0600, and the OS keyring where that is asked for.

    {"version": 1, "credentials": {"id": {…}, "id /home/me/project": {…}}}

An entry without `secret` that is no command's says that the keyring has it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from services.chassis.blocking import Blocking
from services.chassis.keyrings import Keyring
from services.chassis.secret_files import SecretFile
from services.core.errors import CredentialUnusable
from services.vm_runner.credentials.credential import Credential, CredentialKey, Source

FILE_NAME: Final = ".lns-credentials.json"
VARIABLE: Final = "LNS_CREDENTIALS_PATH"
_TEXTS: Final = ("secret", "command", "access_token", "expire_time", "stored_in")


class CredentialFile:
    """Implements `CredentialRecords`.

    Args:
        path: the file.
        blocking: for its reads and writes.
        keyring: opens the OS keyring; called when a secret is stored there or read from there.
        prefer_keyring: whether new secrets go there.
    """

    def __init__(
        self,
        path: Path,
        *,
        blocking: Blocking,
        keyring: Callable[[], Keyring | None],
        prefer_keyring: bool = False,
    ) -> None:
        self._file = SecretFile(
            path,
            member="credentials",
            version=1,
            is_entry=_is_entry,
            what="credentials",
            variable=VARIABLE,
            remedy="move it away and connect again",
        )
        self._blocking = blocking
        self._keyring = keyring
        self._prefer_keyring = prefer_keyring

    async def list(self) -> Sequence[Credential]:
        """See `CredentialRecords`; secrets of the keyring are left out."""
        entries = await self._blocking.run(self._file.read)
        return [_parse(name, entry) for name, entry in sorted(entries.items())]

    async def find(self, key: CredentialKey) -> Credential | None:
        """See `CredentialRecords`."""
        return await self._blocking.run(self._find, key)

    async def put(self, credential: Credential) -> Credential:
        """See `CredentialRecords`."""
        return await self._blocking.run(self._put, credential)

    async def remove(self, key: CredentialKey) -> bool:
        """See `CredentialRecords`."""
        return await self._blocking.run(self._remove, key)

    def _find(self, key: CredentialKey) -> Credential | None:
        entry = self._file.read().get(_name(key))
        if entry is None:
            return None
        found = _parse(_name(key), entry)
        if found.stored_in != "keyring":
            return found
        secret = self._open_keyring().find(_name(key))
        if secret is None:
            raise CredentialUnusable("the keyring does not have it any more, or is locked")
        return replace(found, secret=secret)

    def _put(self, credential: Credential) -> Credential:
        if self._prefer_keyring and credential.secret:
            self._open_keyring().put(_name(credential.key), credential.secret)
            credential = replace(credential, stored_in="keyring")
        entry = _format(credential)
        self._file.change(lambda entries: entries.update({_name(credential.key): entry}))
        return credential

    def _remove(self, key: CredentialKey) -> bool:
        entry = self._file.read().get(_name(key))
        if entry is None:
            return False
        if entry.get("stored_in") == "keyring":
            self._open_keyring().remove(_name(key))
        self._file.change(lambda entries: entries.pop(_name(key), None))
        return True

    def _open_keyring(self) -> Keyring:
        keyring = self._keyring()
        if keyring is None:
            raise CredentialUnusable(
                "this machine has no OS keyring that can be used",
                hint="unlock it, or set vm_runner.credential_store to file",
            )
        return keyring


def _name(key: CredentialKey) -> str:
    return f"{key.integration} {key.project}" if key.project else key.integration


def _parse(name: str, entry: dict[str, Any]) -> Credential:
    integration, _, project = name.partition(" ")
    ends = entry.get("expire_time")
    return Credential(
        key=CredentialKey(integration=integration, project=project),
        source=Source(entry["source"]),
        domains=tuple(entry["domains"]),
        create_time=datetime.fromisoformat(entry["create_time"]),
        stored_in=entry.get("stored_in", "file"),
        secret=entry.get("secret", ""),
        command=entry.get("command", ""),
        access_token=entry.get("access_token", ""),
        expire_time=datetime.fromisoformat(ends) if ends else None,
    )


def _format(credential: Credential) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "source": str(credential.source),
        "domains": list(credential.domains),
        "create_time": credential.create_time.isoformat(),
        "stored_in": credential.stored_in,
    }
    in_file = credential.stored_in != "keyring"
    optional = {
        "secret": credential.secret if in_file else "",
        "command": credential.command,
        "access_token": credential.access_token if in_file else "",
        "expire_time": credential.expire_time.isoformat() if credential.expire_time else "",
    }
    return entry | {name: value for name, value in optional.items() if value}


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict) or entry.get("source") not in set(Source):
        return False
    domains = entry.get("domains")
    if not isinstance(domains, list) or not all(isinstance(one, str) for one in domains):
        return False
    if not all(isinstance(entry.get(name, ""), str) for name in _TEXTS):
        return False
    times = [entry.get("create_time"), *filter(None, [entry.get("expire_time")])]
    return all(_is_time(one) for one in times)


def _is_time(text: object) -> bool:
    try:
        return isinstance(text, str) and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
