import os
import stat
from pathlib import Path

import pytest

from services.chassis import durable


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were synced, in order, and the renames between them."""
    events: list[str] = []
    fsync = os.fsync

    def spy(descriptor: int) -> None:
        events.append("sync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    rename = Path.replace

    def watched(self: Path, target: Path) -> Path:
        events.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", spy)
    monkeypatch.setattr(Path, "replace", watched)
    return events


def test_content_is_synced_before_its_name_and_the_name_after(
    tmp_path: Path, synced: list[str]
) -> None:
    durable.write_bytes(tmp_path / "f", b"data")

    content, rename, directory = synced
    assert content.startswith(f"sync {durable.TEMPORARY_PREFIX}")
    assert (rename, directory) == ("rename", f"sync {tmp_path.name}")
    assert (tmp_path / "f").read_bytes() == b"data"


def test_a_name_that_need_not_last_is_not_waited_for(tmp_path: Path, synced: list[str]) -> None:
    durable.write_bytes(tmp_path / "f", b"data", sync_name=False)

    content, rename = synced
    assert content.startswith(f"sync {durable.TEMPORARY_PREFIX}")
    assert rename == "rename"


def test_a_write_that_fails_leaves_the_former_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"former")

    with pytest.raises(OSError, match="full"), durable.replace_file(path) as file:
        file.write(b"half")
        raise OSError("the disk is full")

    assert path.read_bytes() == b"former"
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o444])
def test_the_mode_is_as_asked_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        durable.write_bytes(tmp_path / "f", b"", mode=mode)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == mode


def test_a_file_is_private_while_it_is_written(tmp_path: Path) -> None:
    with durable.replace_file(tmp_path / "f", mode=0o644) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600


def test_a_link_at_the_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"untouched")
    link = tmp_path / "link"
    link.symlink_to(target)

    durable.write_bytes(link, b"new")

    assert target.read_bytes() == b"untouched"
    assert not link.is_symlink()


def test_a_rename_between_directories_syncs_both(tmp_path: Path, synced: list[str]) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "f").touch()

    durable.rename(tmp_path / "a" / "f", tmp_path / "b" / "g")

    assert synced == ["sync b", "sync a"]
    assert (tmp_path / "b" / "g").exists()


def test_a_file_that_cannot_be_made_is_named_by_its_own_name(tmp_path: Path) -> None:
    target = tmp_path / "absent" / "file"

    with pytest.raises(FileNotFoundError) as caught:
        durable.write_bytes(target, b"x")

    assert caught.value.filename == str(target)
