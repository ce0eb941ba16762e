"""Volumes as files: `volumes/<name>/volume.json` and `disk.img`.

The record is written before the disk is made, and a directory is removed by renaming it first: what
a crash leaves is a volume with an empty disk to be made, or a name that is swept. A volume whose
record cannot be read is known with its problem, and the record is left alone.
"""

import contextlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import structlog

from services.chassis import durable, reserve
from services.chassis.blocking import Blocking
from services.chassis.reserve import Reserve
from services.vm_runner.records.runs import Volume

log = structlog.get_logger()

_VERSION = 1
_BYTES_MOST = 1 << 20
_RECORD = "volume.json"
_DISK = "disk.img"
_PRIVATE = 0o700
_BLOCK = 512  # st_blocks counts in these


class VolumeFiles:
    """Volumes below one directory.

    Args:
        root: the directory.
        blocking: where files are read and written.
        kept: room that gives way to records when the disk is full.
    """

    def __init__(self, root: Path, *, blocking: Blocking, kept: Reserve) -> None:
        self._root = root
        self._blocking = blocking
        self._kept = kept

    async def load(self) -> tuple[Volume, ...]:
        """Returns every recorded volume."""
        return await self._blocking.run(self._load)

    async def save(self, volume: Volume) -> None:
        """Records a volume, durably."""
        await self._blocking.run(self._save, volume)

    async def remove(self, name: str) -> None:
        """Removes a volume and what it holds."""
        await self._blocking.run(self._remove, name)

    async def used_bytes(self, name: str) -> int:
        """Returns what a volume takes on the disk."""
        return await self._blocking.run(self._used_bytes, name)

    def disk(self, name: str) -> Path:
        """Returns a volume's disk image."""
        return self._root / name / _DISK

    # ---- in threads ----

    def _load(self) -> tuple[Volume, ...]:
        self._root.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        volumes = []
        for directory in sorted(self._root.iterdir()):
            if directory.name.startswith(durable.TEMPORARY_PREFIX):
                shutil.rmtree(directory, ignore_errors=True)  # a removal that a crash cut short
                continue
            if directory.is_dir():
                volumes.append(_load(directory))
        return tuple(volumes)

    def _save(self, volume: Volume) -> None:
        directory = self._root / volume.name
        record = {
            "version": _VERSION,
            "limit_bytes": volume.limit_bytes,
            "create_time": volume.create_time.isoformat(),
            "labels": dict(volume.labels),
            "request_id": volume.request_id,
        }
        data = json.dumps(record).encode()
        with reserve.full_disk_is_typed(
            self._root, what=f"the record of volume {volume.name}", needed=len(data)
        ):
            self._kept.write(_write, directory, data)

    def _remove(self, name: str) -> None:
        gone = self._root / f"{durable.TEMPORARY_PREFIX}{name}"
        with contextlib.suppress(FileNotFoundError):
            (self._root / name).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def _used_bytes(self, name: str) -> int:
        try:
            return self.disk(name).stat().st_blocks * _BLOCK
        except FileNotFoundError:
            return 0


def _write(directory: Path, data: bytes) -> None:
    directory.mkdir(mode=_PRIVATE, exist_ok=True)
    durable.write_bytes(directory / _RECORD, data, mode=0o600)


def _load(directory: Path) -> Volume:
    """Returns the volume of a directory, with its problem where its record cannot be read."""
    try:
        with (directory / _RECORD).open("rb") as file:
            return _parse(directory.name, json.loads(file.read(_BYTES_MOST)))
    except FileNotFoundError:
        problem = "the file is missing"
    except Exception as error:  # noqa: BLE001 - whatever it is, the volume has its owner
        problem = str(error) or type(error).__name__
    log.warning("volume_unreadable", directory=str(directory), error=problem)
    return Volume(
        name=directory.name,
        limit_bytes=0,
        create_time=datetime.fromtimestamp(directory.stat().st_mtime, tz=UTC),
        problem=problem,
    )


def _parse(name: str, record: object) -> Volume:
    if not isinstance(record, dict):
        raise TypeError("it is not an object of JSON")
    if record["version"] != _VERSION:
        raise ValueError(f"it has version {record['version']}, and this lns knows {_VERSION}")
    labels = record["labels"]
    if not isinstance(labels, dict):
        raise TypeError("its labels are no mapping")
    return Volume(
        name=name,
        limit_bytes=int(str(record["limit_bytes"])),
        create_time=datetime.fromisoformat(str(record["create_time"])),
        labels=MappingProxyType({str(key): str(value) for key, value in labels.items()}),
        request_id=str(record.get("request_id", "")),
    )
