"""The user's own integrations and prices: `~/.lns-integrations.yaml`, replaced as a whole."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from services.chassis.blocking import Blocking
from services.chassis.edited_files import edit_file, read_edited_file
from services.core.errors import LimitExceeded
from services.core.integrations.user_file import (
    MAX_ENTRIES,
    VERSION,
    UserFile,
    parse_user_file,
)

VARIABLE: Final = "LNS_INTEGRATIONS_PATH"
_HEADER: Final = b"# Integrations of your own; `lns integration add|remove` edits this file.\n"

_Documents = dict[str, Mapping[str, Any]]


class IntegrationFile:
    """Implements `IntegrationRecords`."""

    def __init__(self, path: Path, *, blocking: Blocking) -> None:
        self._path = path
        self._blocking = blocking

    @property
    def name(self) -> str:
        """See `IntegrationRecords`."""
        return str(self._path)

    async def read(self) -> UserFile:
        """See `IntegrationRecords`."""
        return await self._blocking.run(self._read)

    async def put(self, identifier: str, document: Mapping[str, Any]) -> None:
        """See `IntegrationRecords`.

        Raises:
            LimitExceeded: the file holds as many as it may.
        """

        def change(documents: _Documents) -> None:
            documents[identifier] = document
            if len(documents) > MAX_ENTRIES:
                raise LimitExceeded(f"{self.name} has {MAX_ENTRIES} integrations already")

        await self._blocking.run(self._change, change)

    async def remove(self, identifier: str) -> bool:
        """See `IntegrationRecords`."""
        if identifier not in (await self.read()).documents:
            return False

        def change(documents: _Documents) -> None:
            documents.pop(identifier, None)

        await self._blocking.run(self._change, change)
        return True

    def _read(self) -> UserFile:
        return parse_user_file(read_edited_file(self._path), name=self.name)

    def _change(self, change: Callable[[_Documents], None]) -> None:
        def edit(text: bytes) -> bytes:
            file = parse_user_file(text, name=self.name)
            documents = dict(file.documents)
            change(documents)
            return _format(UserFile(documents=documents, prices=file.prices))

        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        edit_file(self._path, edit)


def _format(file: UserFile) -> bytes:
    document: dict[str, Any] = {
        "version": VERSION,
        "integrations": [file.documents[name] for name in sorted(file.documents)],
    }
    if file.prices:
        document["prices"] = file.prices
    plain = json.loads(json.dumps(document))
    return _HEADER + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode()
