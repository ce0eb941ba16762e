"""Volumes as files: `volumes/<name>/volume.json` and `disk.img`.

The record is written before the disk is made, and a directory is removed by renaming it first: what
a crash leaves is a volume with an empty disk to be made, or a name that is swept.
"""

import contextlib
import errno
import json
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import MappingProxyType

import structlog

from services.chassis import durable
from services.chassis.blocking import Blocking
from services.core.errors import CapacityExhausted
from services.vm_runner.records.runs import Volume

log = structlog.get_logger()

_VERSION = 1
_RECORD = "volume.json"
_DISK = "disk.img"
_PRIVATE = 0o700
_BLOCK = 512  # st_blocks counts in these


class VolumeFiles:
    """Volumes below one directory."""

    def __init__(self, root: Path, *, blocking: Blocking) -> None:
        self._root = root
        self._blocking = blocking

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
            try:
                record = json.loads((directory / _RECORD).read_bytes())
                volumes.append(_parse(directory.name, record))
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.warning("volume_unreadable", directory=str(directory), error=str(error))
        return tuple(volumes)

    def _save(self, volume: Volume) -> None:
        directory = self._root / volume.name
        record = {
            "version": _VERSION,
            "limit_bytes": volume.limit_bytes,
            "create_time": volume.create_time.isoformat(),
            "labels": dict(volume.labels),
        }
        try:
            directory.mkdir(mode=_PRIVATE, exist_ok=True)
            durable.write_bytes(directory / _RECORD, json.dumps(record).encode(), mode=0o600)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise CapacityExhausted("no room for a volume on the disk") from error
            raise

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


def _parse(name: str, record: Mapping[str, object]) -> Volume:
    if record["version"] != _VERSION:
        raise ValueError(f"version {record['version']} is not known")
    labels = record["labels"]
    if not isinstance(labels, dict):
        raise TypeError("labels are no mapping")
    return Volume(
        name=name,
        limit_bytes=int(str(record["limit_bytes"])),
        create_time=datetime.fromisoformat(str(record["create_time"])),
        labels=MappingProxyType({str(key): str(value) for key, value in labels.items()}),
    )
