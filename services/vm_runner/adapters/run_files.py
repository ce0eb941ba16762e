"""Records of runs as files: `runs/<run id>/run.json`, written whole and durably.

    {"version": 1, "run": <lns.vm.v1.Run as JSON>, "request_id": …, "boot": …, …}

What is not in the message of a run stands beside it. The directory also holds the run's disk, log
and sockets. A directory without a readable record is logged and left alone.
"""

import asyncio
import contextlib
import errno
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from google.protobuf import json_format
from lns.vm.v1 import run_pb2

from services.chassis import durable
from services.chassis.blocking import Blocking
from services.core.errors import CapacityExhausted, LnsError
from services.vm_runner import messages
from services.vm_runner.records.runs import Run

log = structlog.get_logger()

_VERSION = 1
_RECORD = "run.json"
_PRIVATE = 0o700
_BLOCK = 512  # st_blocks counts in these


class RunFiles:
    """Runs below one directory."""

    def __init__(self, root: Path, *, blocking: Blocking) -> None:
        self._root = root
        self._blocking = blocking
        self._locks: dict[str, asyncio.Lock] = {}

    async def load(self) -> tuple[Run, ...]:
        """Returns every recorded run, oldest first."""
        return await self._blocking.run(self._load)

    async def save(self, run: Run) -> None:
        """Records a run, durably."""
        async with self._locks.setdefault(run.run_id, asyncio.Lock()):
            await self._blocking.run(self._save, run)

    async def remove(self, run_id: str) -> None:
        """Removes a run with its directory."""
        await self._blocking.run(self._remove, run_id)
        self._locks.pop(run_id, None)

    async def size(self, run_id: str) -> int:
        """Returns the bytes that a run takes on the disk."""
        return await self._blocking.run(_disk_bytes, self.directory(run_id))

    def directory(self, run_id: str) -> Path:
        """Returns a run's directory."""
        return self._root / run_id

    # ---- in threads ----

    def _load(self) -> tuple[Run, ...]:
        self._root.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        runs = []
        for directory in self._root.iterdir():
            if not directory.is_dir():
                continue  # the owner's lock
            if directory.name.startswith(durable.TEMPORARY_PREFIX):
                shutil.rmtree(directory, ignore_errors=True)  # a removal that a crash cut short
                continue
            try:
                runs.append(_parse(json.loads((directory / _RECORD).read_bytes())))
            except FileNotFoundError:
                continue
            except (OSError, ValueError, KeyError, TypeError, LnsError) as error:
                log.warning("run_unreadable", directory=str(directory), error=str(error))
        return tuple(sorted(runs, key=lambda run: run.create_time))

    def _save(self, run: Run) -> None:
        directory = self.directory(run.run_id)
        try:
            directory.mkdir(mode=_PRIVATE, exist_ok=True)
            data = json.dumps(_format(run), indent=1).encode()
            durable.write_bytes(directory / _RECORD, data, mode=0o600)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise CapacityExhausted(f"no room to record run {run.name} on the disk") from error
            raise

    def _remove(self, run_id: str) -> None:
        directory = self.directory(run_id)
        # Gone at once; what a crash leaves of the removal is swept at the next start.
        gone = self._root / f"{durable.TEMPORARY_PREFIX}{run_id}"
        try:
            directory.rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone, ignore_errors=True)


def _disk_bytes(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_blocks * _BLOCK
    return total


def _format(run: Run) -> dict[str, Any]:
    message = messages.format_run(run)
    return {
        "version": _VERSION,
        "run": json_format.MessageToDict(message, preserving_proto_field_name=True),
        "request_id": run.request_id,
        "boot": run.boot,
        "sequence": run.sequence,
        "stop_requested": run.stop_requested,
    }


def _parse(record: dict[str, Any]) -> Run:
    if record["version"] != _VERSION:
        raise ValueError(f"version {record['version']} is not known")
    run = messages.parse_run(json_format.ParseDict(record["run"], run_pb2.Run()))
    return replace(
        run,
        request_id=str(record["request_id"]),
        boot=int(record["boot"]),
        sequence=int(record["sequence"]),
        stop_requested=bool(record["stop_requested"]),
    )
