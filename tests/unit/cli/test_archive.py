import io
import os
import tarfile
from pathlib import Path

import pytest

from cli.archive import pack, unpack
from services.core.errors import RequestInvalid


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"") -> bytes:
    """Returns the blocks of one entry, without the end of the archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, len(data), 0o755
    padding = b"\0" * (-len(data) % 512)
    return info.tobuf(tarfile.PAX_FORMAT) + data + padding


def archive(*entries: bytes) -> io.BytesIO:
    return io.BytesIO(b"".join(entries) + b"\0" * 1024)


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "file").write_bytes(b"\x00data")
    (source / "file").chmod(0o640)
    (source / "deep" / "link").symlink_to("../file")
    (source / "hard").hardlink_to(source / "file")
    packed = io.BytesIO()

    pack(source, "copy", packed)
    packed.seek(0)
    count = unpack(packed, tmp_path / "target")

    target = tmp_path / "target"
    assert count == 5
    assert (target / "file").read_bytes() == b"\x00data"
    assert (target / "file").stat().st_mode & 0o777 == 0o640
    assert (target / "deep" / "link").readlink() == Path("../file")
    assert (target / "hard").samefile(target / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "target"]


def test_a_directory_is_copied_into(tmp_path: Path) -> None:
    unpack(archive(entry("file", data=b"x")), tmp_path)

    assert (tmp_path / "file").read_bytes() == b"x"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize(
    "hostile",
    [
        archive(entry("../escape", data=b"x")),
        archive(entry("/absolute", data=b"x")),
        archive(entry("a/../../escape", data=b"x")),
        archive(entry("."), entry("..")),
        archive(entry("d", tarfile.SYMTYPE, "/tmp"), entry("d/file", data=b"x")),
        archive(entry("d", tarfile.DIRTYPE), entry("d", tarfile.SYMTYPE, "/"), entry("d/f")),
        archive(entry("f", data=b"x"), entry("f", tarfile.SYMTYPE, "/etc")),
        archive(entry("h", tarfile.LNKTYPE, "/etc/passwd")),
        archive(entry("h", tarfile.LNKTYPE, "../outside")),
        archive(
            entry("r", tarfile.DIRTYPE),
            entry("r/s", tarfile.SYMTYPE, "/etc/passwd"),
            entry("r/h", tarfile.LNKTYPE, "r/s"),
        ),
        archive(entry("fifo", tarfile.FIFOTYPE)),
        archive(entry("device", tarfile.CHRTYPE)),
        archive(entry("a", data=b"x"), entry("b", data=b"x")),
        archive(),
        io.BytesIO(b"no archive" * 100),
        io.BytesIO(entry("cut", data=b"x" * 4096)[:1500]),
    ],
)
def test_a_hostile_archive_leaves_nothing(tmp_path: Path, hostile: io.BytesIO) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "outside").write_text("mine")

    with pytest.raises(RequestInvalid):
        unpack(hostile, inside / "target")

    assert list(inside.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "outside"]


def test_what_is_there_is_not_mixed_with_a_directory(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").write_text("mine")

    with pytest.raises(RequestInvalid):
        unpack(archive(entry("d", tarfile.DIRTYPE), entry("d/f", data=b"x")), tmp_path)

    assert [path.name for path in (tmp_path / "d").iterdir()] == ["mine"]


def test_special_files_of_this_machine_are_not_sent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(RequestInvalid):
        pack(tmp_path, "copy", io.BytesIO())


def test_a_target_whose_directory_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as failure:
        unpack(io.BytesIO(), tmp_path / "none" / "x")

    assert failure.value.filename == str(tmp_path / "none")
