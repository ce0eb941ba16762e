"""A guest's writes stop before the host's disk is full, in whatever way they would take of it."""

import errno
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.vm_runner.file_server.wire import AttrField, Opcode
from tests.support.fuse_client import ROOT, FuseClient, FuseError, serving
from tests.support.outcomes import passes

BLOCK = 4096
KEPT = 32 << 20
DISK = 1 << 40


class Disk:
    """How full the disk is, as the server sees it."""

    def __init__(self) -> None:
        self.free = DISK // 2
        self.inodes, self.free_inodes = 1_000_000, 500_000

    def look(self, descriptor: int) -> os.statvfs_result:
        os.fstat(descriptor)
        free = self.free // BLOCK
        space = (BLOCK, BLOCK, DISK // BLOCK, free, free)
        return os.statvfs_result((*space, self.inodes, self.free_inodes, self.free_inodes, 0, 255))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    made = Disk()
    monkeypatch.setattr(os, "fstatvfs", made.look)
    return made


@pytest.fixture
def guest(disk: Disk, tmp_path: Path) -> Iterator[FuseClient]:
    (tmp_path / "bound").mkdir()
    (tmp_path / "bound" / "other").write_bytes(b"o" * 2 * BLOCK)
    with serving(tmp_path / "bound") as client:
        yield client


def is_full(act: Callable[[], object]) -> None:
    with pytest.raises(FuseError) as caught:
        act()
    assert caught.value.number == errno.ENOSPC, errno.errorcode[caught.value.number]


def fallocate(guest: FuseClient, node: int, fh: int, offset: int, length: int, mode: int) -> None:
    guest.ask(Opcode.FALLOCATE, node, struct.pack("<QQQII", fh, offset, length, mode, 0))


def copy(guest: FuseClient, source: int, node: int, fh: int, offset: int, length: int) -> None:
    body = struct.pack("<7Q", source, 0, node, fh, offset, length, 0)
    guest.ask(Opcode.COPY_FILE_RANGE, ROOT, body)


def test_the_last_32_mebibytes_stay_the_hosts(guest: FuseClient, disk: Disk) -> None:
    _, fh = guest.create(b"f")
    disk.free = KEPT + 2 * BLOCK

    guest.write(fh, b"x" * 2 * BLOCK, 0)
    is_full(lambda: guest.write(fh, b"x" * (2 * BLOCK + 1), 1 << 20))


def test_what_a_file_has_is_written_again_however_full_the_disk_is(
    guest: FuseClient, disk: Disk
) -> None:
    _, fh = guest.create(b"f")
    guest.write(fh, b"x" * 2 * BLOCK, 0)
    disk.free = 0

    guest.write(fh, b"y" * 2 * BLOCK, 0)
    guest.write(fh, b"z", 5)

    assert guest.read(fh, 6, 0) == b"yyyyyz"


def test_holes_are_not_filled_from_what_the_host_keeps(guest: FuseClient, disk: Disk) -> None:
    entry, fh = guest.create(b"f")
    guest.setattr(entry.node, AttrField.SIZE, size=1 << 30)
    guest.write(fh, b"x" * (64 << 10), 1 << 29)
    disk.free = 0

    is_full(lambda: guest.write(fh, b"x" * (32 << 10), 0))
    is_full(lambda: guest.write(fh, b"x" * (64 << 10), (1 << 29) + BLOCK))  # its end is a hole
    guest.write(fh, b"x" * (32 << 10), 1 << 29)


def test_appended_bytes_are_new_at_whatever_offset_the_guest_names(
    guest: FuseClient, disk: Disk
) -> None:
    entry, fh = guest.create(b"f")
    guest.write(fh, b"x" * 2 * BLOCK, 0)
    appending = guest.open(entry.node, os.O_WRONLY | os.O_APPEND)
    disk.free = 0

    is_full(lambda: guest.write(appending, b"x" * BLOCK, 0))


def test_room_is_not_taken_ahead_or_by_copies(guest: FuseClient, disk: Disk) -> None:
    entry, fh = guest.create(b"f")
    source = guest.open(guest.walk("other").node)
    disk.free = KEPT + BLOCK

    for mode in (0, 1):
        is_full(lambda mode=mode: fallocate(guest, entry.node, fh, 0, 1 << 40, mode))
    is_full(lambda: copy(guest, source, entry.node, fh, 0, 2 * BLOCK))
    copy(guest, source, entry.node, fh, 0, BLOCK)
    disk.free = 0
    is_full(lambda: copy(guest, source, entry.node, fh, BLOCK, BLOCK))


MAKES: dict[str, Callable[[FuseClient], object]] = {
    "create": lambda guest: guest.create(b"n"),
    "mkdir": lambda guest: guest.mkdir(b"n"),
    "mknod": lambda guest: guest.mknod(b"n"),
    "symlink": lambda guest: guest.symlink(b"n", b"t" * 4000),
    "link": lambda guest: guest.link(guest.walk("other").node, b"n"),
    "tmpfile": lambda guest: guest.tmpfile(),
}


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES.keys())
@pytest.mark.parametrize(
    ("free", "inodes", "free_inodes", "is_made"),
    [
        (KEPT + BLOCK, 1_000_000, 1025, True),
        (KEPT + BLOCK, 0, 0, True),  # a file system without a number of inodes
        (KEPT, 1_000_000, 1025, False),
        (KEPT + BLOCK, 1_000_000, 1024, False),
    ],
    ids=["room", "room without a number", "no bytes", "no inodes"],
)
def test_names_are_not_made_of_what_the_host_keeps(
    guest: FuseClient,
    disk: Disk,
    make: Callable[[FuseClient], object],
    free: int,
    inodes: int,
    free_inodes: int,
    is_made: bool,
) -> None:
    disk.free, disk.inodes, disk.free_inodes = free, inodes, free_inodes

    if is_made:
        make(guest)
    else:
        is_full(lambda: make(guest))


def test_room_is_given_back_on_a_full_disk(guest: FuseClient, disk: Disk) -> None:
    entry, fh = guest.create(b"f")
    guest.write(fh, b"x" * 4 * BLOCK, 0)
    disk.free = disk.free_inodes = 0

    with passes():
        fallocate(guest, entry.node, fh, 0, BLOCK, 3)
        guest.setattr(entry.node, AttrField.SIZE, size=BLOCK)
        guest.release(fh)
        guest.unlink(b"f")
