import errno
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.chassis import durable
from services.chassis.blocking import Blocking
from services.chassis.reserve import Reserve
from services.core.errors import CapacityExhausted
from services.vm_runner.adapters.run_files import RunFiles
from services.vm_runner.adapters.volume_files import VolumeFiles
from services.vm_runner.records.runs import RunState, Volume
from tests.support.runs import a_run


class FullDisk:
    """A disk that has room only for what the reserve gives back."""

    def __init__(self, reserve: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._reserve = reserve
        self._size = reserve.stat().st_size if reserve.exists() else 0
        self._write = durable.write_bytes
        monkeypatch.setattr(durable, "write_bytes", self.write_bytes)

    def write_bytes(self, path: Path, data: bytes, **arguments: Any) -> None:
        free = self._size - (self._reserve.stat().st_size if self._reserve.exists() else 0)
        if len(data) > free:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._write(path, data, **arguments)


async def test_runs_and_volumes_are_recorded_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Reserve(tmp_path / ".reserve", size_bytes=1 << 20)
    kept.fill()
    with Blocking(2) as blocking:
        runs = RunFiles(tmp_path / "runs", blocking=blocking, kept=kept)
        volumes = VolumeFiles(tmp_path / "volumes", blocking=blocking, kept=kept)
        assert await runs.load() == ()
        assert await volumes.load() == ()
        FullDisk(tmp_path / ".reserve", monkeypatch)
        await runs.save(a_run())
        volume = Volume(name="data", limit_bytes=1 << 20, create_time=a_run().create_time)
        await volumes.save(volume)
        assert await runs.load() == (a_run(),)
        assert await volumes.load() == (volume,)


async def test_a_record_for_which_nothing_is_left_says_where_and_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Reserve(tmp_path / ".reserve", size_bytes=1 << 20)
    with Blocking(2) as blocking:
        runs = RunFiles(tmp_path / "runs", blocking=blocking, kept=kept)
        await runs.load()
        FullDisk(tmp_path / ".reserve", monkeypatch)
        with pytest.raises(CapacityExhausted) as caught:
            await runs.save(a_run())
    assert f"{tmp_path}/runs" in caught.value.message
    assert "the record of run surveyor" in caught.value.message
    assert int(caught.value.metadata["needed_bytes"]) > 100


@pytest.mark.parametrize("state", [RunState.CREATED, RunState.RUNNING])
async def test_a_record_is_private_and_a_write_that_fails_leaves_the_former_one(
    state: RunState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = replace(a_run(), state=state)
    with Blocking(2) as blocking:
        runs = RunFiles(tmp_path, blocking=blocking, kept=Reserve(tmp_path / ".r", size_bytes=0))
        await runs.save(a_run())
        await runs.save(run)
        record = tmp_path / run.run_id / "run.json"
        assert stat.S_IMODE(record.stat().st_mode) == 0o600
        assert stat.S_IMODE(record.parent.stat().st_mode) == 0o700

        monkeypatch.setattr(os, "fsync", broken_disk)
        with pytest.raises(OSError, match="Input/output error"):
            await runs.save(replace(run, name="another"))
        assert await runs.load() == (run,)


def broken_disk(_: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))
