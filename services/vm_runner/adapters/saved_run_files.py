"""Snapshots of runs as files: `saved/<id>/` with what a machine goes on from, and `saved.json`.

    {"version": 1, "name": …, "run": <lns.vm.v1.Run as JSON>, "fingerprint": …, "progress": …, …}

`memory`, `state` and `writable.img` are the machine; `ca.key` and `ca.pem` its run's authority. A
directory gets its name when everything in it is on the disk. `.tmp-<id>` is a snapshot that is made
or removed; what a crash leaves of it is swept.
"""

import asyncio
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from google.protobuf import json_format
from lns.vm.v1 import run_pb2

from services.chassis import durable, reserve
from services.chassis.blocking import Blocking
from services.core.errors import SnapshotUnknown
from services.vm_runner import messages
from services.vm_runner.adapters.copies import copy_sparse
from services.vm_runner.adapters.disk_usage import disk_bytes
from services.vm_runner.records.run_log import LogStream
from services.vm_runner.snapshots.saved_run import SavedRun

log = structlog.get_logger()

_VERSION = 1
_BYTES_MOST = 16 << 20
_RECORD, _MEMORY, _STATE, _STREAM, _DISK = "saved.json", "memory", "state", "stream", "writable.img"
_AUTHORITY = ("ca.key", "ca.pem")
_ROOM_LEFT = 1 << 30
_WHAT = "a snapshot of a run"


@dataclass(frozen=True, slots=True)
class SavedDraftFiles:
    """A snapshot in the making."""

    directory: Path
    root: Path
    blocking: Blocking

    @property
    def stream(self) -> Path:
        """Where the machine is written first, memory and state in one; not kept."""
        return self.directory / _STREAM

    @property
    def state(self) -> Path:
        """Where the state of processors and devices goes."""
        return self.directory / _STATE

    @property
    def disk(self) -> Path:
        """The copy of the writable layer."""
        return self.directory / _DISK

    async def take_files(self, run_directory: Path) -> None:
        """Copies the writable layer of a run whose machine is held, and its authority."""
        await self.blocking.run(_copy_files, run_directory, self.directory)

    async def make_memory(self, size_bytes: int) -> Path:
        """Makes the file of the memory."""
        return await self.blocking.run(self._make_memory, size_bytes)

    async def keep(self, saved: SavedRun) -> SavedRun:
        """Makes it whole and durable."""
        return await self.blocking.run(self._keep, saved)

    def _make_memory(self, size_bytes: int) -> Path:
        # A page of the memory that finds no room ends the VMM: so there has to be room for all.
        reserve.require(self.root, size_bytes, what=_WHAT, kept=_ROOM_LEFT)
        path = self.directory / _MEMORY
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size_bytes)
        finally:
            os.close(descriptor)
        return path

    def _keep(self, saved: SavedRun) -> SavedRun:
        kept = {_MEMORY, _STATE, _DISK, *_AUTHORITY}
        for path in self.directory.iterdir():
            if path.name not in kept:
                path.unlink()
        with reserve.full_disk_is_typed(self.root, what=_WHAT):
            for path in self.directory.iterdir():
                durable.sync_file(path)
            data = json.dumps(_format(saved), indent=1).encode()
            durable.write_bytes(self.directory / _RECORD, data, mode=0o600)
            place = self.root / saved.snapshot_id
            size = disk_bytes(self.directory)
            durable.rename(self.directory, place)
        return replace(saved, directory=place, size_bytes=size)


class SavedRunFiles:
    """Snapshots of runs below one directory.

    Args:
        root: the directory.
        blocking: where files are read and written.
    """

    def __init__(self, root: Path, *, blocking: Blocking) -> None:
        self._root = root
        self._blocking = blocking

    async def load(self) -> tuple[tuple[SavedRun, ...], tuple[str, ...]]:
        """Returns every snapshot, and the ids of those that a crash left half."""
        return await self._blocking.run(self._load)

    @contextlib.asynccontextmanager
    async def draft(self, snapshot_id: str) -> AsyncIterator[SavedDraftFiles]:
        """Yields a snapshot in the making; what is not kept of it is removed with the block."""
        directory = self._temporary(snapshot_id)
        try:
            await self._blocking.run(directory.mkdir, mode=0o700)
            yield SavedDraftFiles(directory, self._root, self._blocking)
        finally:
            await asyncio.shield(self._blocking.run(shutil.rmtree, directory, ignore_errors=True))

    async def give(self, saved: SavedRun, run_directory: Path) -> None:
        """Gives a run a writable layer and an authority of its own."""
        await self._blocking.run(self._give, saved, run_directory)

    async def remove(self, saved: SavedRun) -> None:
        """Removes a snapshot; machines that were resumed from it go on."""
        await self._blocking.run(self._remove, saved)

    def unfinished(self) -> tuple[Path, ...]:
        """Returns directories in which a service that was killed may have left a machine.

        The machine's name is the directory's.
        """
        return tuple(self._root.glob(f"{durable.TEMPORARY_PREFIX}*"))

    # ---- in threads ----

    def _temporary(self, snapshot_id: str) -> Path:
        return self._root / f"{durable.TEMPORARY_PREFIX}{snapshot_id}"

    def _load(self) -> tuple[tuple[SavedRun, ...], tuple[str, ...]]:
        found, halves = [], []
        for directory in sorted(self._root.iterdir()):
            if not directory.is_dir():
                continue  # the owner's lock
            if directory.name.startswith(durable.TEMPORARY_PREFIX):
                shutil.rmtree(directory, ignore_errors=True)
                halves.append(directory.name.removeprefix(durable.TEMPORARY_PREFIX))
                continue
            try:
                found.append(_parse(directory))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the user's
                log.warning("saved_run_unreadable", directory=str(directory), error=str(error))
        return tuple(found), tuple(halves)

    def _give(self, saved: SavedRun, run_directory: Path) -> None:
        for name in (_DISK, *_AUTHORITY):  # what a try before has left
            (run_directory / name).unlink(missing_ok=True)
        try:
            with reserve.full_disk_is_typed(run_directory, what="a copy of a writable layer"):
                _copy_files(saved.directory, run_directory)
        except FileNotFoundError as error:
            raise SnapshotUnknown(f"the snapshot {saved.name} was removed meanwhile") from error

    def _remove(self, saved: SavedRun) -> None:
        # Gone at once; what a crash leaves of the removal is swept at the next start.
        gone = self._temporary(saved.snapshot_id)
        with contextlib.suppress(FileNotFoundError):
            durable.rename(saved.directory, gone)
            shutil.rmtree(gone, ignore_errors=True)


def _copy_files(source: Path, target: Path) -> None:
    with reserve.full_disk_is_typed(target, what=_WHAT):
        copy_sparse(source / _DISK, target / _DISK)
        for name in _AUTHORITY:
            with contextlib.suppress(FileNotFoundError):  # nothing of it was looked into
                copy_sparse(source / name, target / name)


def _format(saved: SavedRun) -> dict[str, Any]:
    run = json_format.MessageToDict(
        messages.format_run(saved.origin), preserving_proto_field_name=True
    )
    return {
        "version": _VERSION,
        "name": saved.name,
        "request_id": saved.request_id,
        "create_time": saved.create_time.isoformat(),
        "fingerprint": saved.fingerprint,
        "progress": {stream.name: place for stream, place in saved.progress.items()},
        "run": run,
    }


def _parse(directory: Path) -> SavedRun:
    with (directory / _RECORD).open("rb") as file:
        record = json.loads(file.read(_BYTES_MOST))
    if record["version"] != _VERSION:
        raise ValueError(f"it has version {record['version']}, and this lns knows {_VERSION}")
    saved = SavedRun(
        snapshot_id=directory.name,
        name=str(record["name"]),
        request_id=str(record["request_id"]),
        origin=messages.parse_run(json_format.ParseDict(record["run"], run_pb2.Run())),
        fingerprint=str(record["fingerprint"]),
        progress={
            LogStream[name]: (int(position), bool(ended))
            for name, (position, ended) in record["progress"].items()
        },
        create_time=datetime.fromisoformat(record["create_time"]),
        directory=directory,
        size_bytes=disk_bytes(directory),
    )
    size = saved.machine.memory.stat().st_size if saved.machine.memory else 0
    if size != saved.origin.plan.resources.memory_mib << 20 or not saved.machine.state.exists():
        raise ValueError("its files are not whole")
    return saved
