"""What a guest sees and may do in a bound directory, and what it may not."""

import contextlib
import errno
import os
import random
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.vm_runner.file_server import wire
from services.vm_runner.file_server.wire import Malformed, Opcode
from tests.support.fuse_client import (
    INIT,
    ROOT,
    FuseClient,
    FuseError,
    message,
    serving,
)

SECRET = "host secret\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "bound"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_text("content\n")
    (folder / "sub" / "b").write_text("deeper\n")
    (folder / "link").symlink_to("/etc/shadow")
    (folder / ".env").write_text("KEY=1\n")
    (folder / ".docker").mkdir()
    (folder / ".docker" / "config.json").write_text("{}")
    (folder / ".docker" / "Dockerfile").write_text("FROM x")
    (tmp_path / "outside").write_text(SECRET)
    return folder


@pytest.fixture
def guest(folder: Path) -> Iterator[FuseClient]:
    with serving(folder) as client:
        yield client


def fails(number: int, act: Callable[[], object]) -> None:
    with pytest.raises(FuseError) as caught:
        act()
    assert caught.value.number == number, errno.errorcode[caught.value.number]


# ---- looking ----


def test_files_are_found_and_read(guest: FuseClient) -> None:
    assert guest.content(guest.walk("a").node) == b"content\n"
    assert guest.content(guest.walk("sub/b").node) == b"deeper\n"
    assert stat.S_ISDIR(guest.getattr(ROOT).mode)
    fails(errno.ENOENT, lambda: guest.lookup(b"missing"))


def test_an_entry_that_does_not_exist_may_be_remembered_so_for_a_second(guest: FuseClient) -> None:
    answer = guest.ask(Opcode.LOOKUP, ROOT, b"missing\0")
    node, _, valid = struct.unpack_from("<QQQ", answer)
    assert (node, valid) == (0, 1)


@pytest.mark.parametrize("room", [300, 4096])
@pytest.mark.parametrize("plus", [False, True])
def test_a_directory_is_listed_whole_however_small_the_pieces(
    folder: Path, guest: FuseClient, room: int, plus: bool
) -> None:
    for number in range(100):
        (folder / "sub" / f"file {number}").touch()
    names = guest.names(guest.walk("sub").node, plus=plus, room=room)
    assert set(names) == {b".", b"..", b"b"} | {b"file %d" % n for n in range(100)}
    if plus:
        assert names[b"."] == 0
        assert guest.getattr(names[b"file 7"]).size == 0


def test_a_reader_of_a_directory_goes_back(guest: FuseClient) -> None:
    fh = guest.open(ROOT, opcode=Opcode.OPENDIR)

    def first(offset: int) -> bytes:
        return guest.ask(
            Opcode.READDIR, ROOT, struct.pack("<QQIIQII", fh, offset, 4096, 0, 0, 0, 0)
        )

    whole = first(0)
    assert first(2) != whole
    assert first(10_000) == b""
    assert first(0) == whole


def test_a_link_is_reported_and_never_followed(guest: FuseClient) -> None:
    link = guest.walk("link")
    assert stat.S_ISLNK(link.attr.mode)
    assert guest.ask(Opcode.READLINK, link.node) == b"/etc/shadow"
    fails(errno.ENXIO, lambda: guest.open(link.node))
    fails(errno.ENOTDIR, lambda: guest.lookup(b"x", link.node))
    fails(errno.ENXIO, lambda: guest.setattr(link.node, wire.AttrField.SIZE))
    fails(errno.EOPNOTSUPP, lambda: guest.setattr(link.node, wire.AttrField.MODE, mode=0o777))


@pytest.mark.parametrize("name", [b"..", b".", b"", b"sub/b", b"../outside", b"/etc/passwd"])
def test_no_name_leads_elsewhere(guest: FuseClient, name: bytes) -> None:
    fails(errno.EINVAL, lambda: guest.lookup(name))
    fails(errno.EINVAL, lambda: guest.create(name))
    fails(errno.EINVAL, lambda: guest.rename(b"a", name))
    fails(errno.EINVAL, lambda: guest.rename(name, b"x"))
    fails(errno.EINVAL, lambda: guest.unlink(name))


def test_pipes_sockets_and_devices_of_the_host_are_seen_and_never_opened(
    folder: Path, guest: FuseClient
) -> None:
    os.mkfifo(folder / "pipe")  # opening it would block
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "sock"))
    listening.close()
    names = ["pipe", "sock"]
    if os.geteuid() == 0:
        os.mknod(folder / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        names.append("device")
    for name in names:
        found = guest.walk(name)
        assert not stat.S_ISREG(found.attr.mode)
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_TRUNC):
            fails(errno.ENXIO, lambda node=found.node, flags=flags: guest.open(node, flags))  # type: ignore[misc]  # a lambda with defaults
        fails(errno.ENXIO, lambda: guest.create(name.encode()))  # noqa: B023 - called at once


def test_what_the_host_changes_is_seen_at_once(folder: Path, guest: FuseClient) -> None:
    node = guest.walk("a").node
    (folder / "a").write_text("longer content\n")
    assert guest.getattr(node).size == 15
    (folder / "a").rename(folder / "moved")
    fails(errno.ENOENT, lambda: guest.lookup(b"a"))
    assert guest.lookup(b"moved").node == node


def test_a_file_that_another_took_the_place_of_is_stale_not_the_other(
    folder: Path, guest: FuseClient
) -> None:
    node = guest.walk("sub/b").node
    (folder / "sub" / "new").write_text("other\n")
    (folder / "sub" / "new").rename(folder / "sub" / "b")
    fails(errno.ESTALE, lambda: guest.open(node))
    assert guest.content(guest.walk("sub/b").node) == b"other\n"


def test_a_directory_that_another_took_the_place_of_is_stale_not_the_other(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "b").write_text("not shown to the guest\n")
    with serving(folder, most_open=1) as guest:
        sub, file = guest.walk("sub").node, guest.walk("sub/b").node
        guest.content(guest.walk("a").node)  # now no descriptor of `sub` is held
        (folder / "sub").rename(folder / "before")
        (folder / "other").rename(folder / "sub")

        fails(errno.ESTALE, lambda: guest.open(file))
        fails(errno.ESTALE, lambda: guest.create(b"made", sub))
        fails(errno.ESTALE, lambda: guest.unlink(b"b", sub))
        fails(errno.ESTALE, lambda: guest.lookup(b"b", sub))
    assert [path.name for path in (folder / "sub").iterdir()] == ["b"]


def test_a_guest_keeps_what_it_read_only_while_nothing_changed(
    folder: Path, guest: FuseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = guest.walk("a").node
    later = time.time_ns() + 10**10

    def keeps() -> bool:
        answer = guest.ask(Opcode.OPEN, node, struct.pack("<II", os.O_RDONLY, 0))
        return bool(struct.unpack_from("<QI", answer)[1] & 1 << 1)

    assert [keeps(), keeps()] == [False, False]  # changed just now: it could again, unseen
    monkeypatch.setattr("time.time_ns", lambda: later)
    assert [keeps(), keeps(), keeps()] == [False, True, True]
    status = (folder / "a").stat()
    (folder / "a").write_text("CONTENT\n")
    os.utime(folder / "a", ns=(status.st_atime_ns, status.st_mtime_ns))  # as if nothing were
    assert [keeps(), keeps()] == [False, True]


# ---- what is changed ----


def test_files_are_made_written_and_kept_on_the_host(folder: Path, guest: FuseClient) -> None:
    entry, fh = guest.create(b"new", mode=0o640)
    assert guest.write(fh, b"hello", 3) == 5
    guest.ask(Opcode.FSYNC, entry.node, struct.pack("<QII", fh, 0, 0))
    guest.ask(Opcode.FSYNC, entry.node, struct.pack("<QII", fh, 1, 0))
    assert guest.read(fh) == b"\0\0\0hello"
    guest.release(fh)
    assert (folder / "new").read_bytes() == b"\0\0\0hello"
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o640
    fails(errno.EEXIST, lambda: guest.create(b"new", flags=os.O_RDWR | os.O_EXCL))
    _, again = guest.create(b"new", flags=os.O_RDWR | os.O_TRUNC)
    assert guest.read(again) == b""


def test_what_is_appended_goes_to_the_end_whoever_writes(folder: Path, guest: FuseClient) -> None:
    fh = guest.open(guest.walk("a").node, os.O_WRONLY | os.O_APPEND)
    with (folder / "a").open("a") as host:
        host.write("host\n")
    guest.write(fh, b"guest\n", 8)
    assert (folder / "a").read_text() == "content\nhost\nguest\n"


def test_directories_links_and_nodes_are_made_and_removed(folder: Path, guest: FuseClient) -> None:
    made = guest.mkdir(b"d")
    guest.symlink(b"s", b"../outside", made.node)
    guest.link(guest.walk("a").node, b"hard", made.node)
    guest.mknod(b"file", parent=made.node)
    guest.mknod(b"pipe", stat.S_IFIFO | 0o600, made.node)
    guest.mknod(b"sock", stat.S_IFSOCK | 0o600, made.node)
    assert (folder / "a").stat().st_nlink == 2
    assert sorted(path.name for path in (folder / "d").iterdir()) == [
        "file", "hard", "pipe", "s", "sock",
    ]  # fmt: skip
    fails(errno.ENOTEMPTY, lambda: guest.rmdir(b"d"))
    for name in (b"s", b"hard", b"file", b"pipe", b"sock"):
        guest.unlink(name, made.node)
    guest.rmdir(b"d")
    assert not (folder / "d").exists()


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFDIR, 0])
def test_a_guest_makes_no_devices(folder: Path, guest: FuseClient, kind: int) -> None:
    fails(errno.EPERM, lambda: guest.mknod(b"device", kind | 0o666))
    assert not (folder / "device").exists()


def test_nothing_is_made_that_runs_as_its_owner(folder: Path, guest: FuseClient) -> None:
    entry, _ = guest.create(b"tool", mode=0o6755)
    guest.setattr(entry.node, wire.AttrField.MODE, mode=0o6777)
    guest.mkdir(b"dir", mode=0o7777)
    assert stat.S_IMODE((folder / "tool").stat().st_mode) == 0o777
    assert stat.S_IMODE((folder / "dir").stat().st_mode) == 0o1777


def test_attributes_are_changed_and_the_owner_stays(folder: Path, guest: FuseClient) -> None:
    field = wire.AttrField
    node = guest.walk("a").node
    owner = (folder / "a").stat().st_uid
    guest.setattr(node, field.UID | field.GID, uid=1234, gid=1234)
    guest.setattr(node, field.MODE | field.SIZE, mode=0o600, size=3)
    attr = guest.setattr(node, field.ATIME | field.MTIME, atime=5, mtime=7, mtime_ns=11)
    status = (folder / "a").stat()
    assert (status.st_uid, status.st_mode & 0o777, status.st_size) == (owner, 0o600, 3)
    assert (attr.mtime, status.st_mtime_ns, status.st_atime_ns) == (7, 7 * 10**9 + 11, 5 * 10**9)
    before = guest.setattr(node, field.MTIME, mtime=2**64 - 1).mtime
    assert before == 2**64 - 1  # a second before the epoch
    guest.setattr(node, field.ATIME | field.ATIME_NOW | field.MTIME | field.MTIME_NOW)
    assert (folder / "a").stat().st_mtime_ns > 10**18
    fails(errno.EINVAL, lambda: guest.setattr(node, field.SIZE, size=1 << 63))


def test_entries_move_over_others_and_change_places(folder: Path, guest: FuseClient) -> None:
    a, sub = guest.walk("a"), guest.walk("sub")
    guest.rename(b"a", b"c", to=sub.node)
    assert guest.walk("sub/c").node == a.node
    fails(errno.EEXIST, lambda: guest.rename(b"c", b"b", parent=sub.node, to=sub.node, flags=1))
    guest.rename(b"c", b"b", parent=sub.node, to=sub.node, flags=2)
    assert guest.content(guest.walk("sub/c").node) == b"deeper\n"
    guest.rename(b"c", b"b", parent=sub.node, to=sub.node)
    assert (folder / "sub" / "b").read_text() == "deeper\n"
    fails(errno.EINVAL, lambda: guest.rename(b"b", b"x", parent=sub.node, flags=7))


def test_who_has_a_file_open_keeps_it_when_its_name_is_gone(
    folder: Path, guest: FuseClient
) -> None:
    for number, take_away in enumerate((guest.unlink, lambda name: guest.rename(b"other", name))):
        (folder / "victim").write_text("mine\n")
        (folder / "other").write_text("other\n")
        node = guest.walk("victim").node
        fh = guest.open(node, os.O_RDWR)
        take_away(b"victim")
        assert guest.getattr(node).nlink == 0, number
        guest.setattr(node, wire.AttrField.SIZE, size=2)
        assert guest.read(fh) == b"mi"
        guest.release(fh)
        guest.forget(node)
        fails(errno.ESTALE, lambda: guest.getattr(node))  # noqa: B023 - called at once


def test_holes_room_and_copies(folder: Path, guest: FuseClient) -> None:
    entry, fh = guest.create(b"sparse")
    guest.ask(Opcode.FALLOCATE, entry.node, struct.pack("<QQQII", fh, 0, 8192, 0, 0))
    assert (folder / "sparse").stat().st_size == 8192
    fails(
        errno.EOPNOTSUPP,
        lambda: guest.ask(Opcode.FALLOCATE, entry.node, struct.pack("<QQQII", fh, 0, 1, 8, 0)),
    )
    (offset,) = struct.unpack(
        "<Q", guest.ask(Opcode.LSEEK, entry.node, struct.pack("<QQII", fh, 0, 4, 0))
    )
    assert offset in (0, 8192)  # a file system may know no holes
    source = guest.open(guest.walk("a").node)
    body = struct.pack("<7Q", source, 0, entry.node, fh, 100, 8, 0)
    assert struct.unpack_from("<I", guest.ask(Opcode.COPY_FILE_RANGE, ROOT, body)) == (8,)
    assert guest.read(fh, 8, 100) == b"content\n"


def test_a_guest_asks_what_it_may_do(guest: FuseClient) -> None:
    node = guest.walk("a").node
    assert guest.ask(Opcode.ACCESS, node, struct.pack("<II", os.R_OK | os.W_OK, 0)) == b""
    fails(errno.EACCES, lambda: guest.ask(Opcode.ACCESS, node, struct.pack("<II", os.X_OK, 0)))
    assert len(guest.ask(Opcode.STATFS, ROOT)) == 80


# ---- read-only ----


def test_nothing_changes_in_a_read_only_bind(folder: Path) -> None:
    before = sorted(str(path) for path in folder.rglob("*"))
    with serving(folder, read_only=True) as guest:
        node = guest.walk("a").node
        assert guest.content(node) == b"content\n"
        for act in (
            lambda: guest.open(node, os.O_RDWR),
            lambda: guest.open(node, os.O_RDONLY | os.O_TRUNC),
            lambda: guest.create(b"x"),
            lambda: guest.create(b"a"),
            lambda: guest.mkdir(b"x"),
            lambda: guest.mknod(b"x"),
            lambda: guest.symlink(b"x", b"y"),
            lambda: guest.link(node, b"x"),
            lambda: guest.unlink(b"a"),
            lambda: guest.rmdir(b"sub"),
            lambda: guest.rename(b"a", b"x"),
            lambda: guest.rename(b"a", b"sub", flags=2),
            lambda: guest.setattr(node, wire.AttrField.SIZE),
            lambda: guest.setattr(node, wire.AttrField.MODE, mode=0o777),
            lambda: guest.setattr(node, wire.AttrField.MTIME),
            lambda: guest.ask(Opcode.ACCESS, node, struct.pack("<II", os.W_OK, 0)),
        ):
            fails(errno.EROFS, act)
    assert sorted(str(path) for path in folder.rglob("*")) == before
    assert (folder / "a").read_text() == "content\n"


# ---- secrets ----


def test_secrets_at_the_top_are_hidden(folder: Path, guest: FuseClient) -> None:
    (folder / "sub" / ".env").write_text("deeper: the project's own affair\n")
    for plus in (False, True):
        assert b".env" not in guest.names(plus=plus)
        assert b"config.json" not in guest.names(guest.walk(".docker").node, plus=plus)
    fails(errno.ENOENT, lambda: guest.lookup(b".env"))
    fails(errno.ENOENT, lambda: guest.walk(".docker/config.json"))
    assert guest.walk(".docker/Dockerfile").attr.size == 6
    assert guest.walk("sub/.env").attr.size > 0


def test_no_trick_makes_a_secret_visible_or_writes_over_it(folder: Path, guest: FuseClient) -> None:
    a = guest.walk("a").node
    sub = guest.walk("sub").node
    for act in (
        lambda: guest.create(b".env"),
        lambda: guest.create(b".env", flags=os.O_RDWR | os.O_TRUNC),
        lambda: guest.mkdir(b".ssh"),
        lambda: guest.mknod(b"id_rsa"),
        lambda: guest.symlink(b".npmrc", b"a"),
        lambda: guest.link(a, b".env"),
        lambda: guest.rename(b"a", b".env"),
        lambda: guest.rename(b"b", b".env", parent=sub),
        lambda: guest.rename(b"a", b".env", flags=2),
        lambda: guest.rename(b".docker", b"docker"),
        lambda: guest.rename(b".docker", b"docker", to=sub),
        lambda: guest.rename(b"sub", b".docker", flags=2),
    ):
        fails(errno.EACCES, act)
    for act in (
        lambda: guest.unlink(b".env"),
        lambda: guest.rename(b".env", b"visible"),
        lambda: guest.rename(b".env", b"visible", to=sub),
        lambda: guest.rename(b".env", b"a", flags=2),
    ):
        fails(errno.ENOENT, act)
    guest.symlink(b"alias", b".env")  # the guest follows it, and finds nothing
    assert (folder / ".env").read_text() == "KEY=1\n"


def test_secrets_kept_on_purpose_are_files_like_others(folder: Path) -> None:
    with serving(folder, hides_secrets=False) as guest:
        assert guest.content(guest.walk(".env").node) == b"KEY=1\n"
        assert b".env" in guest.names()
        guest.rename(b".docker", b"docker")


@pytest.mark.parametrize("hides_secrets", [True, False])
def test_what_says_what_a_run_may_reach_is_not_in_its_bind(
    folder: Path, *, hides_secrets: bool
) -> None:
    (folder / "lns-policy.yaml").write_text("network: {}\n")
    (folder / "sub" / "lns-policy.yaml").write_text("an example\n")
    with serving(folder, hides_secrets=hides_secrets) as guest:
        sub = guest.walk("sub").node
        assert b"lns-policy.yaml" not in guest.names()
        for act in (
            lambda: guest.walk("lns-policy.yaml"),
            lambda: guest.unlink(b"lns-policy.yaml"),
            lambda: guest.rename(b"lns-policy.yaml", b"other"),
            lambda: guest.rename(b"lns-policy.yaml", b"policy", to=sub),
        ):
            fails(errno.ENOENT, act)
        assert guest.content(guest.walk("sub/lns-policy.yaml").node) == b"an example\n"
    assert (folder / "lns-policy.yaml").read_text() == "network: {}\n"


# ---- bounds ----


def test_a_guest_that_looks_at_everything_holds_few_descriptors(
    folder: Path,
) -> None:
    for number in range(200):
        (folder / f"dir {number}").mkdir()
        (folder / f"dir {number}" / "file").write_text(str(number))
    with serving(folder, most_open=8) as guest:
        nodes = guest.session._served.nodes
        found = {n: guest.walk(f"dir {n}/file").node for n in range(200)}
        assert nodes.held_open <= 8
        assert all(guest.content(node) == str(n).encode() for n, node in found.items())
        assert nodes.held_open <= 8


def test_what_is_forgotten_takes_no_room(folder: Path) -> None:
    with serving(folder) as guest:
        nodes = guest.session._served.nodes
        for _ in range(3):
            deep = guest.walk("sub/b").node
        sub = guest.walk("sub").node
        guest.forget(sub, 100)
        assert guest.content(deep) == b"deeper\n"  # its directory is still known here
        guest.tell(Opcode.BATCH_FORGET, 0, struct.pack("<IIQQ", 1, 0, deep, 3))
        assert (len(nodes), nodes.held_open) == (1, 0)
        guest.forget(ROOT, 1)
        assert guest.walk("a").attr.size == 8


def test_too_many_nodes_and_open_files_are_refused_not_fatal(folder: Path) -> None:
    for number in range(20):
        (folder / f"file {number}").touch()
    with serving(folder, most=10, handles=3) as guest:
        known = [guest.walk(f"file {n}").node for n in range(9)]
        fails(errno.ENFILE, lambda: guest.walk("file 9"))
        fails(errno.ENFILE, lambda: guest.create(b"new"))
        assert len(guest.names(plus=True)) > 20  # listed, to be looked up later
        guest.forget(known[0], 2)
        node = guest.walk("file 9").node
        opened = [guest.open(node) for _ in range(3)]
        fails(errno.ENFILE, lambda: guest.open(node))
        guest.release(opened[0])
        guest.open(node)


def test_numbers_that_a_guest_invents_mean_nothing(guest: FuseClient) -> None:
    for node in (0, 2, 77, 2**64 - 1):
        fails(errno.ESTALE, lambda node=node: guest.getattr(node))  # type: ignore[misc]  # a lambda with defaults
    for fh in (0, 1, 2**64 - 1):
        fails(errno.EBADF, lambda fh=fh: guest.read(fh))  # type: ignore[misc]  # a lambda with defaults
        fails(errno.EBADF, lambda fh=fh: guest.write(fh, b"x"))  # type: ignore[misc]  # a lambda with defaults
        guest.release(fh)
    file = guest.open(guest.walk("a").node)
    fails(
        errno.EBADF,
        lambda: guest.ask(Opcode.READDIR, ROOT, struct.pack("<QQIIQII", file, 0, 99, 0, 0, 0, 0)),
    )


@pytest.mark.parametrize("opcode", [0, 7, 21, 22, 23, 24, 31, 39, 40, 52, 4096, 2**32 - 1])
def test_what_is_not_served_is_said_to_be_unknown(guest: FuseClient, opcode: int) -> None:
    fails(errno.ENOSYS, lambda: guest.ask(opcode, ROOT, bytes(64)))


@pytest.mark.parametrize("version", [(6, 40), (8, 0), (7, 30)])
def test_a_guest_of_another_version_is_refused(guest: FuseClient, version: tuple[int, int]) -> None:
    body = struct.pack("<IIII", *version, 0, 0)
    fails(errno.EPROTO, lambda: guest.ask(Opcode.INIT, 0, body))


def test_who_sends_init_is_shown_as_the_owner(folder: Path) -> None:
    with serving(folder) as guest:
        answer = guest.ask(Opcode.INIT, 0, INIT, uid=1000)
        assert struct.unpack_from("<II", answer) == (7, 31)
        assert len(answer) == 64
        attr = guest.walk("a").attr
        assert (attr.uid, attr.gid) == (1000, 1000)
        entry, _ = guest.create(b"mine")
        assert entry.attr.uid == 1000
        assert (folder / "mine").stat().st_uid == os.geteuid()


def test_noise_is_answered_or_ends_the_session_and_changes_nothing(folder: Path) -> None:
    chance = random.Random(7)  # noqa: S311  # repeatable, not secret
    opcodes = list(Opcode)
    with serving(folder) as guest:
        guest.names(plus=True)
        for _ in range(3000):
            body = chance.randbytes(chance.choice((0, 1, 8, 16, 40, 64, 200)))
            if chance.random() < 0.3:  # names that are names
                body = chance.choice((b"", bytes(8), bytes(16))) + b"n%d\0" % chance.randrange(5)
            data = message(chance.choice(opcodes), chance.randrange(8), body)
            guest.session.answer(wire.parse_request(memoryview(data)))
        assert guest.getattr(ROOT).nlink > 0
    assert (folder.parent / "outside").read_text() == SECRET
    assert (folder / ".env").read_text() == "KEY=1\n"


# ---- the connection ----


def test_messages_arrive_in_pieces_and_together(folder: Path) -> None:
    ours, theirs = socket.socketpair()
    with serving(folder) as guest, ours:
        thread = threading.Thread(target=lambda: guest.session.serve(theirs))
        thread.start()
        lookup = message(Opcode.LOOKUP, ROOT, b"a\0", unique=5)
        big = message(
            Opcode.WRITE, ROOT, struct.pack("<QQIIQII", 9, 0, 7, 0, 0, 0, 0) + bytes(200_000)
        )
        for byte in lookup:
            ours.send(bytes([byte]))
        assert struct.unpack("<IiQ", receive(ours, 16)) == (144, 0, 5)
        receive(ours, 128)
        ours.sendall(lookup * 100 + big * 5 + lookup)
        for _ in range(100):
            receive(ours, 144)
        for _ in range(5):
            assert struct.unpack("<IiQ", receive(ours, 16))[1] == -errno.EBADF
        receive(ours, 144)
        ours.close()
        thread.join(10)
        assert not thread.is_alive()
    theirs.close()


def receive(connection: socket.socket, size: int) -> bytes:
    connection.settimeout(10)
    data = b""
    while len(data) < size:
        data += connection.recv(size - len(data))
    return data


@pytest.mark.parametrize("size", [0, 39, 1 << 30])
def test_what_is_no_message_ends_the_session(folder: Path, size: int) -> None:
    ours, theirs = socket.socketpair()
    with serving(folder) as guest, ours, theirs:
        ours.sendall(struct.pack("<I", size) + bytes(100))
        with pytest.raises(Malformed):
            guest.session.serve(theirs)


# ---- the host at the same time ----


def test_a_directory_that_becomes_a_link_outwards_is_never_followed(
    folder: Path, tmp_path: Path
) -> None:
    """A host process renames without end; the guest reads only what is in the bind."""
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "b").write_text(SECRET)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (folder / "sub").rename(folder / "kept")
            (folder / "sub").symlink_to(outside)
            (folder / "sub").unlink()
            (folder / "kept").rename(folder / "sub")

    thread = threading.Thread(target=swap)
    inside, seen = {b"deeper\n", b". .. b"}, set[bytes]()
    with serving(folder, most_open=2) as guest:
        sub = guest.walk("sub").node
        file = guest.walk("sub/b").node
        thread.start()
        try:
            tries = 0
            while tries < 2000 or (seen != inside and tries < 100_000):
                tries += 1
                seen |= looked_at(guest, sub, file)
        finally:
            stop.set()
            thread.join()
    assert seen == inside


def looked_at(guest: FuseClient, folder: int, file: int) -> set[bytes]:
    """What a guest sees of a directory that is being swapped, by its name and by what it knows."""
    seen = set()
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: guest.content(guest.walk("sub/b").node),
        lambda: guest.content(file),
        lambda: b" ".join(sorted(guest.names(folder))),
    )
    for way in ways:
        with contextlib.suppress(FuseError):  # it was a link just then, or not there
            seen.add(way())
    return seen
