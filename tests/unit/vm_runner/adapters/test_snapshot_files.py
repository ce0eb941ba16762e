"""Snapshots are a cache: one that this version cannot read goes, the others stay."""

import json
from pathlib import Path

import pytest

from services.chassis.blocking import Blocking
from services.vm_runner.adapters.snapshot_files import SnapshotFiles

RECORD = {
    "version": 1,
    "image_digest": "ab" * 32,
    "sources": ["h.example/a@sha256:00"],
    "vcpus": 1,
    "memory_mib": 1,
    "create_time": "2026-01-01T00:00:00+00:00",
}
"""As the first version wrote it."""


def keep(root: Path, key: str, record: str) -> None:
    folder = root / key
    folder.mkdir()
    (folder / "snapshot.json").write_text(record)
    (folder / "memory").write_bytes(bytes(1 << 20))
    (folder / "state").write_bytes(b"state")


@pytest.mark.parametrize(
    "record",
    [json.dumps({**RECORD, "version": 2}), json.dumps({**RECORD, "memory_mib": 2}), "{", "[]", ""],
)
async def test_a_snapshot_of_another_version_is_swept_and_the_first_one_is_read(
    tmp_path: Path, record: str
) -> None:
    keep(tmp_path, "first", json.dumps(RECORD))
    keep(tmp_path, "other", record)

    with Blocking(2, name="test") as blocking:
        (found,) = await SnapshotFiles(tmp_path, blocking=blocking).load()

    assert (found.key, found.vcpus, found.image_digest) == ("first", 1, "ab" * 32)
    assert not (tmp_path / "other").exists()
