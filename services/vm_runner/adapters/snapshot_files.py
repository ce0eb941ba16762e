"""Snapshots as files: `snapshots/<key>/` with `memory`, `state` and `snapshot.json`.

    {"version": 1, "image_digest": …, "sources": […], "vcpus": …, "memory_mib": …, "create_time": …}

A directory gets its name when everything in it is on the disk; the time of the record's last change
is that of the snapshot's last use. `.tmp-*` is a snapshot in the making, `ahead/` the room of
machines that wait; a crash leaves both to be swept.
"""

import asyncio
import contextlib
import errno
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog

from services.chassis import durable
from services.chassis.blocking import Blocking
from services.core.errors import CapacityExhausted
from services.vm_runner.adapters.disk_usage import disk_bytes
from services.vm_runner.machines import SavedMachine
from services.vm_runner.snapshots.snapshot import Snapshot

log = structlog.get_logger()

_VERSION = 1
_RECORD = "snapshot.json"
_MEMORY, _STATE = "memory", "state"
_ROOM = "ahead"
_ROOM_LEFT = 1 << 30


@dataclass(frozen=True, slots=True)
class DraftFiles:
    """A snapshot in the making."""

    directory: Path
    root: Path
    blocking: Blocking

    async def make_file(self, name: str, size_bytes: int) -> Path:
        """Makes a sparse file."""
        return await self.blocking.run(self._make_file, name, size_bytes)

    async def keep(self, snapshot: Snapshot) -> Snapshot:
        """Makes it whole and durable under its key."""
        return await self.blocking.run(self._keep, snapshot)

    def _make_file(self, name: str, size_bytes: int) -> Path:
        path = self.directory / name
        # A page of the memory that finds no room ends the VMM: so there has to be room for all.
        if name == _MEMORY and shutil.disk_usage(self.root).free < size_bytes + _ROOM_LEFT:
            raise CapacityExhausted(f"the disk of {self.root} has no room for a snapshot")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size_bytes)
        finally:
            os.close(descriptor)
        return path

    def _keep(self, snapshot: Snapshot) -> Snapshot:
        for path in self.directory.iterdir():
            if path.name not in (_MEMORY, _STATE):
                path.unlink()
        place = self.root / snapshot.key
        try:
            for name in (_MEMORY, _STATE):
                durable.sync_file(self.directory / name)
            kept = replace(snapshot, size_bytes=disk_bytes(self.directory), saved=_saved(place))
            data = json.dumps(_format(kept), indent=1).encode()
            durable.write_bytes(self.directory / _RECORD, data, mode=0o600)
            shutil.rmtree(place, ignore_errors=True)  # of a key whose record could not be read
            durable.rename(self.directory, place)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise CapacityExhausted(f"no room for a snapshot in {self.root}") from error
            raise
        return kept


class SnapshotFiles:
    """Snapshots below one directory.

    Args:
        root: the directory; its owner holds a lock on it.
        blocking: where files are read and written.
    """

    def __init__(self, root: Path, *, blocking: Blocking) -> None:
        self._root = root
        self._blocking = blocking

    async def load(self) -> tuple[Snapshot, ...]:
        """Returns every snapshot; sweeps what a crash left, and what cannot be read."""
        return await self._blocking.run(self._load)

    @contextlib.asynccontextmanager
    async def draft(self) -> AsyncIterator[DraftFiles]:
        """Yields a snapshot in the making; what is not kept of it is removed with the block."""
        name = f"{durable.TEMPORARY_PREFIX}{secrets.token_hex(4)}"
        directory = self._root / name
        try:
            await self._blocking.run(directory.mkdir, mode=0o700)
            yield DraftFiles(directory, self._root, self._blocking)
        finally:
            await asyncio.shield(self._blocking.run(shutil.rmtree, directory, ignore_errors=True))

    async def touch(self, snapshot: Snapshot) -> None:
        """Records its time of use."""
        await self._blocking.run(self._touch, snapshot)

    async def remove(self, key: str) -> None:
        """Removes a snapshot; machines that were resumed from it go on."""
        await self._blocking.run(self._remove, key)

    def waiting_room(self) -> Path:
        """Returns the directory for machines that were resumed ahead, which exists."""
        return self._root / _ROOM

    def unfinished(self) -> tuple[Path, ...]:
        """Returns directories in which a service that was killed may have left a machine.

        The machine's name is the directory's.
        """
        room = self.waiting_room()
        return (*room.glob("*"), *self._root.glob(f"{durable.TEMPORARY_PREFIX}*"))

    # ---- in threads ----

    def _load(self) -> tuple[Snapshot, ...]:
        shutil.rmtree(self._root / _ROOM, ignore_errors=True)
        (self._root / _ROOM).mkdir(mode=0o700)
        found = []
        for directory in self._root.iterdir():
            if not directory.is_dir() or directory.name == _ROOM:
                continue
            try:
                found.append(_parse(directory))
            except (OSError, ValueError, KeyError, TypeError) as error:
                if not directory.name.startswith(durable.TEMPORARY_PREFIX):
                    log.warning("snapshot_unreadable", key=directory.name[:12], error=str(error))
                shutil.rmtree(directory, ignore_errors=True)
        return tuple(found)

    def _touch(self, snapshot: Snapshot) -> None:
        moment = snapshot.use_time.timestamp()
        with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
            os.utime(self._root / snapshot.key / _RECORD, (moment, moment))

    def _remove(self, key: str) -> None:
        # Gone at once; what a crash leaves of the removal is swept at the next start.
        gone = self._root / f"{durable.TEMPORARY_PREFIX}{secrets.token_hex(4)}"
        with contextlib.suppress(FileNotFoundError):
            (self._root / key).rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def _saved(place: Path) -> SavedMachine:
    return SavedMachine(memory=place / _MEMORY, state=place / _STATE)


def _format(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "image_digest": snapshot.image_digest,
        "sources": list(snapshot.sources),
        "vcpus": snapshot.vcpus,
        "memory_mib": snapshot.memory_mib,
        "create_time": snapshot.create_time.isoformat(),
    }


def _parse(directory: Path) -> Snapshot:
    record = json.loads((directory / _RECORD).read_bytes())
    if record["version"] != _VERSION:
        raise ValueError(f"version {record['version']} is not known")
    saved = _saved(directory)
    memory_mib = int(record["memory_mib"])
    memory_size = (directory / _MEMORY).stat().st_size
    if memory_size != memory_mib << 20 or not saved.state.stat().st_size:
        raise ValueError("its files are not whole")
    used = (directory / _RECORD).stat().st_mtime
    return Snapshot(
        key=directory.name,
        image_digest=str(record["image_digest"]),
        sources=tuple(str(source) for source in record["sources"]),
        vcpus=int(record["vcpus"]),
        memory_mib=memory_mib,
        size_bytes=disk_bytes(directory),
        create_time=datetime.fromisoformat(record["create_time"]),
        use_time=datetime.fromtimestamp(used, UTC),
        saved=saved,
    )
