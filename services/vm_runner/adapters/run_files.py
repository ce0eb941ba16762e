"""Records of runs as files: `runs/<run id>/run.json`, written whole and durably.

    {"version": 1, "run": <lns.vm.v1.Run as JSON>, "request_id": …, "boot": …, …}

What is not in the message of a run stands beside it. The directory also holds the run's disk, log
and sockets. A run whose record cannot be read is in state `unknown`, and the record is left alone.
"""

import asyncio
import contextlib
import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from google.protobuf import json_format
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2

from services.chassis import durable, reserve
from services.chassis.blocking import Blocking
from services.chassis.messages import parse_port
from services.chassis.reserve import Reserve
from services.core.errors import LnsError
from services.vm_runner import messages
from services.vm_runner.adapters.disk_usage import disk_bytes
from services.vm_runner.records.runs import Run, RunState
from services.vm_runner.records.unread import unread_run

log = structlog.get_logger()

_VERSION = 1
_BYTES_MOST = 16 << 20
_RECORD = "run.json"
_PRIVATE = 0o700


class RunFiles:
    """Runs below one directory.

    Args:
        root: the directory.
        blocking: where files are read and written.
        kept: room that gives way to records when the disk is full.
    """

    def __init__(self, root: Path, *, blocking: Blocking, kept: Reserve) -> None:
        self._root = root
        self._blocking = blocking
        self._kept = kept
        self._locks: dict[str, asyncio.Lock] = {}

    async def load(self) -> tuple[Run, ...]:
        """Returns every recorded run, oldest first."""
        return await self._blocking.run(self._load)

    async def room(self) -> int:
        """Returns what may be written beside what is kept free."""
        return await self._blocking.run(reserve.room, self._root)

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
        return await self._blocking.run(disk_bytes, self.directory(run_id))

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
            run = _load(directory)
            if run is not None:
                runs.append(run)
        return tuple(sorted(runs, key=lambda run: run.create_time))

    def _save(self, run: Run) -> None:
        directory = self.directory(run.run_id)
        data = json.dumps(_format(run), indent=1).encode()
        runs = run.state is RunState.RUNNING
        with reserve.full_disk_is_typed(
            self._root, what=f"the record of run {run.name}", needed=len(data)
        ):
            self._kept.write(_write_running if runs else _write, directory, data)

    def _remove(self, run_id: str) -> None:
        directory = self.directory(run_id)
        # Gone at once; what a crash leaves of the removal is swept at the next start.
        gone = self._root / f"{durable.TEMPORARY_PREFIX}{run_id}"
        try:
            directory.rename(gone)
        except FileNotFoundError:
            return
        shutil.rmtree(gone, ignore_errors=True)


def _format(run: Run) -> dict[str, Any]:
    message = messages.format_run(run)
    return {
        "version": _VERSION,
        "run": json_format.MessageToDict(message, preserving_proto_field_name=True),
        "request_id": run.request_id,
        "boot": run.boot,
        "sequence": run.sequence,
        "stop_requested": run.stop_requested,
        "start_request_id": run.start_request_id,
    }


def _write(directory: Path, data: bytes) -> None:
    directory.mkdir(mode=_PRIVATE, exist_ok=True)
    durable.write_bytes(directory / _RECORD, data, mode=0o600)


def _write_running(directory: Path, data: bytes) -> None:
    """Writes that a workload runs, without waiting a second time for the disk.

    After a power failure neither the workload nor its VMM lives: the record of the VMM, which
    came before, says just as well that the run is lost.
    """
    durable.write_bytes(directory / _RECORD, data, mode=0o600, sync_name=False)


def _load(directory: Path) -> Run | None:
    """Returns the run of a directory; None for one that was never recorded."""
    record: object = None
    try:
        with (directory / _RECORD).open("rb") as file:
            record = json.loads(file.read(_BYTES_MOST))
        return _parse(record, directory.name)
    except FileNotFoundError:
        names = [path.name for path in directory.iterdir()]
        if all(name.startswith(durable.TEMPORARY_PREFIX) for name in names):
            return None  # a crash came before it was recorded
        problem = "the file is missing"
    except Exception as error:  # noqa: BLE001 - whatever it is, the run may be alive
        problem = str(error) or type(error).__name__
    log.warning("run_unreadable", directory=str(directory), error=problem)
    return _unread(directory, record, problem)


def _parse(record: object, run_id: str) -> Run:
    if not isinstance(record, dict):
        raise TypeError("it is not an object of JSON")
    if record["version"] != _VERSION:
        raise ValueError(f"it has version {record['version']}, and this lns knows {_VERSION}")
    run = messages.parse_run(json_format.ParseDict(record["run"], run_pb2.Run()))
    if run.run_id != run_id:
        raise ValueError(f"it is of run {run.run_id}")
    return replace(
        run,
        request_id=str(record["request_id"]),
        boot=int(record["boot"]),
        sequence=int(record["sequence"]),
        stop_requested=bool(record["stop_requested"]),
        start_request_id=str(record.get("start_request_id", "")),
    )


def _unread(directory: Path, record: object, problem: str) -> Run:
    """Returns a run whose record cannot be read, with what stands in it all the same."""
    message = run_pb2.Run()
    if isinstance(record, dict):
        with contextlib.suppress(Exception):  # whatever a later version wrote there
            json_format.ParseDict(record["run"], message, ignore_unknown_fields=True)
    ports = []
    for port in message.ports:
        with contextlib.suppress(LnsError):
            ports.append(parse_port(port))
    return unread_run(
        directory.name,
        problem=problem,
        create_time=datetime.fromtimestamp(directory.stat().st_mtime, tz=UTC),
        name=message.name,
        ports=tuple(ports),
        volumes=[
            volume.source
            for volume in message.plan.volumes
            if volume.kind == run_plan_pb2.VolumeMount.KIND_NAMED
        ],
    )
