"""Answers to requests as one file: `{"version": 1, "answers": [[request id, answer], …]}`."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import structlog

from services.chassis import durable, reserve
from services.chassis.blocking import Blocking
from services.chassis.reserve import Reserve

log = structlog.get_logger()

_VERSION = 1
_BYTES_MOST = 1 << 20


class AnswerFile:
    """Answers in a file.

    Args:
        path: of the file; its directory exists.
        blocking: where it is written.
        kept: room that gives way when the disk is full.
    """

    def __init__(self, path: Path, *, blocking: Blocking, kept: Reserve) -> None:
        self._path = path
        self._blocking = blocking
        self._kept = kept
        self._lock = asyncio.Lock()

    async def load(self) -> Mapping[str, str]:
        """Returns what was saved; nothing where that cannot be read."""
        return await self._blocking.run(self._load)

    async def save(self, answers: Mapping[str, str]) -> None:
        """Saves answers, durably; the last to be called is the last to be saved."""
        async with self._lock:
            await self._blocking.run(self._save, answers)

    def _load(self) -> dict[str, str]:
        try:
            with self._path.open("rb") as file:
                record = json.loads(file.read(_BYTES_MOST))
            if record["version"] != _VERSION:
                return {}
            return {str(request): str(answer) for request, answer in record["answers"]}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("answers_unreadable", path=str(self._path), error=str(error))
            return {}

    def _save(self, answers: Mapping[str, str]) -> None:
        record = {"version": _VERSION, "answers": [list(pair) for pair in answers.items()]}
        data = json.dumps(record).encode()
        with reserve.full_disk_is_typed(
            self._path.parent, what="the record of a removal", needed=len(data)
        ):
            self._kept.write(durable.write_bytes, self._path, data, mode=0o600)
