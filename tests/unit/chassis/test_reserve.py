import errno
import os
from pathlib import Path

import pytest

from services.chassis import reserve
from services.core.errors import CapacityExhausted
from tests.support.outcomes import passes

_MIB = 1 << 20


class FullDisk:
    """A disk on which a record fits once the reserve has given way to a certain size."""

    def __init__(self, path: Path, *, fits_at: int) -> None:
        self.path = path
        self.fits_at = fits_at
        self.calls = 0

    def record(self, text: str) -> str:
        self.calls += 1
        if self.path.stat().st_size > self.fits_at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return text


def test_a_reserve_is_allocated_and_not_sparse(tmp_path: Path) -> None:
    kept = reserve.Reserve(tmp_path / "reserve", size_bytes=_MIB)
    assert kept.fill()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= _MIB


def test_a_record_is_written_when_the_disk_is_full_and_room_is_kept_for_it(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    kept = reserve.Reserve(path, size_bytes=_MIB)
    kept.fill()
    disk = FullDisk(path, fits_at=_MIB - 1)
    assert kept.write(disk.record, "a run") == "a run"
    assert disk.calls == 2


def test_a_reserve_gives_no_more_than_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reserve"
    kept = reserve.Reserve(path, size_bytes=_MIB)
    kept.fill()
    monkeypatch.setattr(reserve, "free_bytes", lambda _: 0)  # nothing to fill it with again
    kept.write(FullDisk(path, fits_at=_MIB - 1).record, "a run")
    assert 0 < path.stat().st_size < _MIB


def test_a_reserve_that_is_used_up_says_that_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    kept = reserve.Reserve(path, size_bytes=_MIB)
    kept.fill()
    with pytest.raises(OSError, match="No space"):
        kept.write(FullDisk(path, fits_at=-1).record, "a run")
    assert path.stat().st_size == 0


def test_a_reserve_is_filled_again_when_space_is_free(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    kept = reserve.Reserve(path, size_bytes=_MIB)
    kept.fill()
    kept.write(FullDisk(path, fits_at=0).record, "a run")
    assert path.stat().st_size == _MIB


def test_an_error_of_another_kind_costs_no_reserve(tmp_path: Path) -> None:
    path = tmp_path / "reserve"
    kept = reserve.Reserve(path, size_bytes=_MIB)
    kept.fill()

    def fails() -> None:
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        kept.write(fails)
    assert path.stat().st_size == _MIB


def test_a_reserve_is_never_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "reserve").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic"):
        reserve.Reserve(tmp_path / "reserve").fill()
    assert (tmp_path / "victim").read_bytes() == b"precious"


def test_what_leaves_the_kept_room_alone_may_be_written(tmp_path: Path) -> None:
    with passes():
        reserve.require(tmp_path, 1, what="a file")


@pytest.mark.parametrize(
    ("free", "needed", "fits"),
    [
        (1 << 30, 100 * _MIB, True),
        (1 << 30, (1 << 30) - reserve.KEPT_BYTES, True),
        (1 << 30, (1 << 30) - reserve.KEPT_BYTES + 1, False),
        (0, 0, False),
    ],
)
def test_room_is_looked_for_beside_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, needed: int, fits: bool
) -> None:
    blocks = (1 << 40) // 4096
    monkeypatch.setattr(
        os,
        "statvfs",
        lambda _: os.statvfs_result((4096, 4096, blocks, 0, free // 4096, 0, 0, 0, 0, 255)),
    )
    if fits:
        reserve.require(tmp_path, needed, what="a file")
        return
    with pytest.raises(CapacityExhausted) as caught:
        reserve.require(tmp_path, needed, what="a file")
    assert str(tmp_path) in caught.value.message
    assert caught.value.metadata["free_bytes"] == str(free)


def test_a_full_disk_names_the_directory_what_is_needed_and_what_is_free(tmp_path: Path) -> None:
    def write() -> None:
        with reserve.full_disk_is_typed(tmp_path, what="the record of run r", needed=3 * _MIB):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with pytest.raises(CapacityExhausted) as caught:
        write()
    assert f"the disk of {tmp_path} has no room for the record of run r" in caught.value.message
    assert "3 MiB are needed" in caught.value.message
    assert "are free" in caught.value.message


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    with (
        pytest.raises(PermissionError),
        reserve.full_disk_is_typed(tmp_path, what="a file"),
    ):
        raise PermissionError(errno.EACCES, "no")
