"""Temporary files go away, and leave the disk the room that it keeps."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.core.errors import CapacityExhausted
from services.registry_gateway.adapters.sources.spool import Spool


def test_what_was_written_remains_until_the_folder_is_left(tmp_path: Path) -> None:
    spool = Spool(tmp_path)

    with spool.folder() as folder:
        spool.write(folder / "file", [b"one", b"", b"two"])
        assert (folder / "file").read_bytes() == b"onetwo"

    assert list(tmp_path.iterdir()) == []


def test_what_goes_wrong_while_writing_leaves_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)

    def chunks() -> Iterator[bytes]:
        yield b"one"
        raise KeyError

    with pytest.raises(KeyError), spool.folder() as folder:
        spool.write(folder / "file", chunks())

    assert list(tmp_path.iterdir()) == []


def test_the_room_that_the_disk_keeps_is_not_taken(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    spool = Spool(tmp_path, reserve_bytes=disk.f_blocks * disk.f_frsize)

    with pytest.raises(CapacityExhausted, match="no room"), spool.folder() as folder:
        spool.write(folder / "file", [b"one"])


def test_a_full_disk_is_reported_as_one(tmp_path: Path) -> None:
    # The kernel's own device for a disk that is full.
    with pytest.raises(CapacityExhausted, match="no room"):
        Spool(tmp_path).write(Path("/dev/full"), [b"x" * (1 << 20)])


def test_an_error_of_who_makes_the_chunks_stays_theirs(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        raise OSError(errno.ENOSPC, "elsewhere")
        yield b""

    with pytest.raises(OSError, match="elsewhere"):
        Spool(tmp_path).write(tmp_path / "file", chunks())
