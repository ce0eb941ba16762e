"""What POSIX says of calls that fail or have an effect beside their own, as pjdfstest asks it."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.vm_runner.file_server.wire import AttrField
from tests.support.fuse_client import FuseClient, FuseError, serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dir" / "inner").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("content")
    (tmp_path / "other").write_text("other")
    (tmp_path / "link").symlink_to("file")
    return tmp_path


@pytest.fixture
def guest(folder: Path) -> Iterator[FuseClient]:
    with serving(folder) as client:
        yield client


def node(guest: FuseClient, path: str) -> int:
    return guest.walk(path).node


LONG = b"n" * 256
Act = Callable[[FuseClient], object]

FAILURES: list[tuple[str, Act, int]] = [
    ("mkdir over a file", lambda g: g.mkdir(b"file"), errno.EEXIST),
    ("mkdir over a link", lambda g: g.mkdir(b"link"), errno.EEXIST),
    ("mkdir of a long name", lambda g: g.mkdir(LONG), errno.ENAMETOOLONG),
    ("mkdir below a file", lambda g: g.mkdir(b"x", node(g, "file")), errno.ENOTDIR),
    ("mkfifo over a file", lambda g: g.mknod(b"file", stat.S_IFIFO | 0o600), errno.EEXIST),
    ("symlink over a directory", lambda g: g.symlink(b"dir", b"x"), errno.EEXIST),
    ("link over a file", lambda g: g.link(node(g, "file"), b"other"), errno.EEXIST),
    ("link of a directory", lambda g: g.link(node(g, "dir"), b"x"), errno.EPERM),
    ("unlink of what is missing", lambda g: g.unlink(b"missing"), errno.ENOENT),
    ("unlink of a directory", lambda g: g.unlink(b"empty"), errno.EISDIR),
    ("rmdir of a file", lambda g: g.rmdir(b"file"), errno.ENOTDIR),
    ("rmdir of a link", lambda g: g.rmdir(b"link"), errno.ENOTDIR),
    ("rmdir of a directory with entries", lambda g: g.rmdir(b"dir"), errno.ENOTEMPTY),
    ("rmdir of what is missing", lambda g: g.rmdir(b"missing"), errno.ENOENT),
    ("rename of what is missing", lambda g: g.rename(b"missing", b"x"), errno.ENOENT),
    ("rename of a file over a directory", lambda g: g.rename(b"file", b"empty"), errno.EISDIR),
    ("rename of a directory over a file", lambda g: g.rename(b"empty", b"file"), errno.ENOTDIR),
    ("rename over a full directory", lambda g: g.rename(b"empty", b"dir"), errno.ENOTEMPTY),
    (
        "rename of a directory into itself",
        lambda g: g.rename(b"dir", b"x", to=node(g, "dir/inner")),
        errno.EINVAL,
    ),
    ("rename to a long name", lambda g: g.rename(b"file", LONG), errno.ENAMETOOLONG),
    (
        "exclusive creation of a file that exists",
        lambda g: g.create(b"file", flags=os.O_RDWR | os.O_EXCL),
        errno.EEXIST,
    ),
    ("opening a directory to write", lambda g: g.open(node(g, "dir"), os.O_RDWR), errno.EISDIR),
    (
        "truncating a directory",
        lambda g: g.setattr(node(g, "dir"), AttrField.SIZE, size=0),
        errno.EISDIR,
    ),
    (
        "a size beyond every file system",
        lambda g: g.setattr(node(g, "file"), AttrField.SIZE, size=1 << 63),
        errno.EINVAL,
    ),
    ("a file without a name in a file", lambda g: g.tmpfile(node(g, "file")), errno.ENOTDIR),
]


@pytest.mark.parametrize(
    ("act", "number"), [row[1:] for row in FAILURES], ids=[r[0] for r in FAILURES]
)
def test_a_call_that_fails_says_why_and_changes_nothing(
    folder: Path, guest: FuseClient, act: Act, number: int
) -> None:
    before = sorted(folder.rglob("*"))

    with pytest.raises(FuseError) as caught:
        act(guest)

    assert errno.errorcode[caught.value.number] == errno.errorcode[number]
    assert sorted(folder.rglob("*")) == before
    assert (folder / "file").read_text() == "content"


@pytest.mark.parametrize(
    ("path", "mode", "expected"),
    [
        ("dir", 0o2755, 0o2755),  # `git init --shared`
        ("dir", 0o3777, 0o3777),
        ("dir", 0o4755, 0o0755),
        ("dir", 0o1777, 0o1777),
        ("dir", 0o000, 0o000),
        ("file", 0o2755, 0o0755),  # it would run with its owner's group on the host
        ("file", 0o6755, 0o0755),
        ("file", 0o1644, 0o1644),
        ("file", 0o400, 0o400),
    ],
)
def test_a_mode_is_set_without_the_bits_that_run_as_another_user(
    folder: Path, guest: FuseClient, path: str, mode: int, expected: int
) -> None:
    shown = guest.setattr(node(guest, path), AttrField.MODE, mode=mode)

    assert stat.S_IMODE(shown.mode) == expected
    assert stat.S_IMODE((folder / path).stat().st_mode) == expected


def test_what_is_made_in_a_directory_with_the_group_bit_has_its_group_bit(
    folder: Path, guest: FuseClient
) -> None:
    guest.setattr(node(guest, "dir"), AttrField.MODE, mode=0o2775)

    made = guest.mkdir(b"made", node(guest, "dir"))

    assert made.attr.mode & stat.S_ISGID
    assert (folder / "dir" / "made").stat().st_mode & stat.S_ISGID


def test_set_id_bits_of_the_hosts_files_are_not_shown(folder: Path, guest: FuseClient) -> None:
    (folder / "file").chmod(0o6755)

    assert stat.S_IMODE(guest.walk("file").attr.mode) == 0o755


def test_a_file_without_a_name_is_written_read_and_given_one(
    folder: Path, guest: FuseClient
) -> None:
    before = sorted(folder.iterdir())
    entry, fh = guest.tmpfile()
    guest.write(fh, b"nameless")

    assert guest.read(fh) == b"nameless"
    assert guest.getattr(entry.node).nlink == 0
    assert sorted(folder.iterdir()) == before
    named = guest.link(entry.node, b"named")
    guest.release(fh)
    assert (folder / "named").read_text() == "nameless"
    assert guest.content(named.node) == b"nameless"


def test_a_file_without_a_name_is_gone_with_its_last_user(folder: Path, guest: FuseClient) -> None:
    entry, fh = guest.tmpfile(flags=os.O_RDWR | os.O_EXCL)
    guest.write(fh, b"x" * 4096)
    with pytest.raises(FuseError) as caught:
        guest.link(entry.node, b"named")
    assert caught.value.number == errno.ENOENT
    guest.release(fh)
    guest.forget(entry.node)

    with pytest.raises(FuseError) as caught:
        guest.getattr(entry.node)
    assert caught.value.number == errno.ESTALE
    assert guest.session._served.nodes.held_open <= 1


def test_nameless_files_are_bounded_and_none_is_made_in_a_read_only_bind(folder: Path) -> None:
    with serving(folder, most_open=4) as guest:
        for _ in range(4):
            guest.tmpfile()
        with pytest.raises(FuseError) as caught:
            guest.tmpfile()
        assert caught.value.number == errno.ENFILE
    with serving(folder, read_only=True) as guest, pytest.raises(FuseError) as caught:
        guest.tmpfile()
    assert caught.value.number == errno.EROFS


def test_a_write_beyond_the_end_leaves_a_hole_of_zeros(folder: Path, guest: FuseClient) -> None:
    fh = guest.open(node(guest, "file"), os.O_RDWR)
    guest.write(fh, b"end", offset=100)

    assert (folder / "file").read_bytes() == b"content" + bytes(93) + b"end"


def test_a_rename_over_another_name_of_the_same_file_changes_nothing(
    folder: Path, guest: FuseClient
) -> None:
    guest.link(node(guest, "file"), b"again")

    guest.rename(b"file", b"again")

    assert {"file", "again"} <= {path.name for path in folder.iterdir()}
    assert guest.walk("file").attr.nlink == 2


def test_times_are_kept_to_the_nanosecond(folder: Path, guest: FuseClient) -> None:
    guest.setattr(
        node(guest, "file"),
        AttrField.ATIME | AttrField.MTIME,
        atime=1,
        atime_ns=2,
        mtime=1_700_000_000,
        mtime_ns=123_456_789,
    )

    assert (folder / "file").stat().st_mtime_ns == 1_700_000_000_123_456_789
