"""In which order the store's bytes and names reach the disk."""

import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from services.chassis.blocking import Blocking
from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.registry_gateway.adapters.store.disk_store import DiskStore
from services.registry_gateway.adapters.store.sqlite_index import SqliteIndex

DATA = b"bytes of a blob"
DIGEST = Digest.of(DATA)
PRAGMAS = ("journal_mode", "synchronous")
NORMAL = 1  # `PRAGMA synchronous`: 0 is OFF


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is synced and renamed, in order, by the last part of the path."""
    seen: list[str] = []
    fdatasync, fsync, rename = os.fdatasync, os.fsync, Path.rename

    def name(descriptor: int) -> str:
        return Path(f"/proc/self/fd/{descriptor}").readlink().name

    def on_fdatasync(descriptor: int) -> None:
        seen.append(f"sync {name(descriptor)}")
        fdatasync(descriptor)

    def on_fsync(descriptor: int) -> None:
        seen.append(f"sync {name(descriptor)}")
        fsync(descriptor)

    def on_rename(self: Path, target: Path) -> Path:
        seen.append(f"rename {self.name} {target.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fdatasync", on_fdatasync)
    monkeypatch.setattr(os, "fsync", on_fsync)
    monkeypatch.setattr(Path, "rename", on_rename)
    return seen


async def test_a_blob_has_its_name_after_its_bytes_are_on_the_disk(
    tmp_path: Path, steps: list[str]
) -> None:
    with Blocking(1) as blocking:
        store = DiskStore(tmp_path, blocking)
        ingest = await store.ingest(
            Descriptor(media_type="", digest=DIGEST, size=len(DATA)), resume=True
        )
        ingest.write(DATA)
        assert steps == []
        ingest.commit()
        ingest.close()

        part = f"{DIGEST.hex}.part"
        assert steps == [f"sync {part}", f"rename {part} {DIGEST.hex}"]


async def test_settling_syncs_the_names(tmp_path: Path, steps: list[str]) -> None:
    with Blocking(1) as blocking:
        store = DiskStore(tmp_path, blocking)
        await store.write(DATA)
        steps.clear()

        await store.settle()

        assert steps == ["sync sha256", "sync sha512"]


def test_the_index_syncs_what_it_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def watched(*arguments: Any, **more: Any) -> sqlite3.Connection:
        opened.append(connect(*arguments, **more))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", watched)
    index = SqliteIndex(tmp_path / "index.sqlite")
    asked = {name: opened[0].execute(f"PRAGMA {name}").fetchone()[0] for name in PRAGMAS}
    index.close()

    assert asked["journal_mode"] == "wal"
    assert asked["synchronous"] >= NORMAL
