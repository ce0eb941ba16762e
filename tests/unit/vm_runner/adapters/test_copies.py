"""Copies of sparse files: equal, as sparse, and whole or not there."""

import errno
from pathlib import Path
from typing import Any

import pytest

from services.vm_runner.adapters import copies
from services.vm_runner.adapters.copies import copy_sparse

PIECE = b"data" * 4096
SIZE = 8 << 20
PLACES = {
    "nothing at all": [],
    "at the beginning": [0],
    "at the end": [SIZE - len(PIECE)],
    "between holes": [1 << 20, 4 << 20],
}


def sparse(path: Path, places: list[int]) -> Path:
    with path.open("wb") as file:
        file.truncate(SIZE)
        for place in places:
            file.seek(place)
            file.write(PIECE)
    return path


def no_clones(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system that cannot share blocks."""

    def refused(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(copies.fcntl, "ioctl", refused)


@pytest.mark.parametrize("places", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("copies_in_kernel", [True, False])
def test_a_copy_is_equal_and_as_sparse(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    places: list[int],
    shares: bool,
    copies_in_kernel: bool,
) -> None:
    if not shares:
        no_clones(monkeypatch)
    if not copies_in_kernel:

        def refused(*_: Any) -> int:
            raise OSError(errno.EXDEV, "not here")

        monkeypatch.setattr(copies.os, "copy_file_range", refused)
    source = sparse(tmp_path / "source", places)
    copy_sparse(source, tmp_path / "copy")

    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert (tmp_path / "copy").stat().st_blocks <= source.stat().st_blocks + 64
    assert (tmp_path / "copy").stat().st_mode & 0o077 == 0


def test_a_copy_that_cannot_be_whole_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    no_clones(monkeypatch)
    monkeypatch.setattr(copies.os, "copy_file_range", full)
    source = sparse(tmp_path / "source", [0])
    with pytest.raises(OSError, match="full"):
        copy_sparse(source, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_a_link_is_not_followed_and_a_file_not_replaced(tmp_path: Path) -> None:
    source = sparse(tmp_path / "source", [0])
    (tmp_path / "link").symlink_to("source")
    with pytest.raises(OSError, match="symbolic"):
        copy_sparse(tmp_path / "link", tmp_path / "copy")
    (tmp_path / "there").write_text("mine")
    with pytest.raises(FileExistsError):
        copy_sparse(source, tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"
