"""Files written behind the back of who receives their bytes."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.registry_gateway.adapters.store.write_behind import WriteBehind

PIECES = [bytes([number]) * 1000 for number in range(40)]


@pytest.fixture
def full() -> Iterator[int]:
    """A descriptor of a device that has no room."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[int]:
    """A descriptor of an empty file."""
    descriptor = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def test_pieces_are_written_in_their_order(empty: int) -> None:
    writer = WriteBehind(empty)
    for piece in PIECES[:-1]:
        writer.write(piece)
    writer.write_last(PIECES[-1])
    assert os.pread(empty, 1 << 20, 0) == b"".join(PIECES)
    writer.discard()


def test_a_flush_leaves_nothing_unwritten(empty: int) -> None:
    writer = WriteBehind(empty)
    writer.write(b"first")
    writer.flush()
    assert os.pread(empty, 100, 0) == b"first"
    writer.discard()


@pytest.mark.parametrize("call", ["flush", "write_last", "write"])
def test_a_full_disk_is_reported_by_a_later_call(full: int, call: str) -> None:
    writer = WriteBehind(full)
    writer.write(b"no room")
    later = {
        "flush": writer.flush,
        "write_last": lambda: writer.write_last(b"the end"),
        "write": lambda: [writer.write(piece) for piece in PIECES],
    }[call]
    with pytest.raises(OSError) as raised:  # noqa: PT011 - its number is what counts
        later()
    assert raised.value.errno == errno.ENOSPC
    writer.discard()


def test_what_is_discarded_may_be_followed_by_something_else(empty: int) -> None:
    writer = WriteBehind(empty)
    for piece in PIECES:
        writer.write(piece)
    writer.discard()
    os.ftruncate(empty, 0)
    os.lseek(empty, 0, os.SEEK_SET)
    writer.write(b"anew")
    writer.flush()
    assert os.pread(empty, 1 << 20, 0) == b"anew"
    writer.discard()


def test_one_piece_needs_no_thread(empty: int) -> None:
    writer = WriteBehind(empty)
    writer.write_last(b"small")
    assert writer._thread is None
    assert os.pread(empty, 100, 0) == b"small"
