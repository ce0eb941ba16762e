import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.archive import CopyLimits, pack, unpack
from services.chassis import reserve
from services.core.errors import CapacityExhausted, LimitExceeded, LnsError, RequestInvalid
from tests.support.tars import END, base256, gnu_long, header, pax, record
from tests.support.tars import entry as raw_entry

NAME = "asked"


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"") -> bytes:
    """Returns the blocks of one entry, without the end of the archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, len(data), 0o755
    padding = b"\0" * (-len(data) % 512)
    return info.tobuf(tarfile.PAX_FORMAT) + data + padding


def archive(*entries: bytes) -> bytes:
    return b"".join(entries) + END


def directory(name: str = NAME) -> bytes:
    return entry(name, tarfile.DIRTYPE)


def test_a_tree_comes_back_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "file").write_bytes(b"\x00data")
    (source / "file").chmod(0o640)
    (source / "deep" / "link").symlink_to("../file")
    (source / ("n" * 120)).write_bytes(b"")
    packed = io.BytesIO()

    pack(source, "copy", packed)
    count = unpack([packed.getvalue()], tmp_path / "t", name="copy")

    target = tmp_path / "t"
    assert count == 5
    assert (target / "file").read_bytes() == b"\x00data"
    assert (target / "file").stat().st_mode & 0o777 == 0o640
    assert (target / "deep" / "link").readlink() == Path("../file")
    assert (target / ("n" * 120)).read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "t"]


def test_a_directory_is_copied_into(tmp_path: Path) -> None:
    unpack([archive(entry(NAME, data=b"x"))], tmp_path / NAME, name=NAME)

    assert (tmp_path / NAME).read_bytes() == b"x"
    assert list(tmp_path.iterdir()) == [tmp_path / NAME]


def test_privileges_are_not_copied(tmp_path: Path) -> None:
    unpack([archive(raw_entry(NAME.encode(), b"x", mode=0o6755))], tmp_path / NAME, name=NAME)

    assert (tmp_path / NAME).stat().st_mode & 0o7777 == 0o755


def gnu_sparse(size: int) -> bytes:
    """A header that claims a file of one hole, as GNU tar writes it."""
    fields = base256(size, 12) + base256(0, 12) + bytes(72) + b"\0" + base256(size, 12)
    return header(NAME.encode(), kind=b"S", magic=b"ustar  \0", gnu=bytes(41) + fields)


def deep(levels: int) -> bytes:
    names = ["/".join([NAME, *"a" * level]) for level in range(levels)]
    return archive(*[raw_entry(name.encode(), kind=b"5") for name in names if len(name) <= 100])


HOSTILE = {
    "another name": archive(entry(".bashrc", data=b"x")),
    "another name, a link": archive(entry("authorized_keys", tarfile.SYMTYPE, "/etc/passwd")),
    "a name that begins like it": archive(entry(NAME + "x", data=b"x")),
    "a name in another case": archive(entry(NAME.upper(), data=b"x")),
    "another name behind the right one": archive(directory(), entry(".bashrc", data=b"x")),
    "another name in an extended header": archive(
        pax((b"path", b".bashrc")), entry(NAME, data=b"x")
    ),
    "another name in GNU's header": archive(gnu_long(b"L", b".bashrc\0"), entry(NAME, data=b"x")),
    "another name in a global header": archive(
        pax((b"path", b".bashrc"), kind=b"g"), entry(NAME, data=b"x")
    ),
    "a path upwards": archive(entry("../escape", data=b"x")),
    "a path upwards below the name": archive(directory(), entry(f"{NAME}/../escape", data=b"x")),
    "a path upwards behind the name": archive(directory(), entry(f"{NAME}/..", data=b"x")),
    "an absolute path": archive(entry("/absolute", data=b"x")),
    "the name with a dot": archive(entry(f"./{NAME}", data=b"x")),
    "an empty part": archive(directory(), entry(f"{NAME}//f", data=b"x")),
    "dots": archive(entry("."), entry("..")),
    "below a link": archive(entry(NAME, tarfile.SYMTYPE, "/tmp"), entry(f"{NAME}/file", data=b"x")),
    "a directory that becomes a link": archive(
        directory(), entry(NAME, tarfile.SYMTYPE, "/"), entry(f"{NAME}/f")
    ),
    "a file that becomes a link": archive(
        entry(NAME, data=b"x"), entry(NAME, tarfile.SYMTYPE, "/etc")
    ),
    "a directory that is never made": archive(directory(), entry(f"{NAME}/d/f", data=b"x")),
    "a file before its directory": archive(entry(f"{NAME}/f", data=b"x"), directory()),
    "a hard link to a later file": archive(
        directory(),
        entry(f"{NAME}/h", tarfile.LNKTYPE, f"{NAME}/f"),
        entry(f"{NAME}/f", data=b"x"),
    ),
    "a hard link to a directory": archive(directory(), entry(f"{NAME}/h", tarfile.LNKTYPE, NAME)),
    "a hard link out": archive(entry(NAME, tarfile.LNKTYPE, "/etc/passwd")),
    "a hard link upwards": archive(entry(NAME, tarfile.LNKTYPE, "../outside")),
    "a hard link to a link": archive(
        directory(),
        entry(f"{NAME}/s", tarfile.SYMTYPE, "/etc/passwd"),
        entry(f"{NAME}/h", tarfile.LNKTYPE, f"{NAME}/s"),
    ),
    "a FIFO": archive(entry(NAME, tarfile.FIFOTYPE)),
    "a device": archive(entry(NAME, tarfile.CHRTYPE)),
    "a sparse file of GNU": archive(gnu_sparse(1 << 30)),
    "a sparse file of 1 PiB": archive(gnu_sparse(1 << 50)),
    "a sparse file, form 0.0": archive(
        pax((b"GNU.sparse.size", b"1073741824"), (b"GNU.sparse.numblocks", b"0")), entry(NAME)
    ),
    "a sparse file, form 0.1": archive(
        pax((b"GNU.sparse.size", b"1073741824"), (b"GNU.sparse.map", b"0,0")), entry(NAME)
    ),
    "a sparse file, form 1.0": archive(
        pax(
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.realsize", b"1073741824"),
        ),
        entry(NAME, data=b"0\n".ljust(512, b"\0")),
    ),
    "attributes": archive(pax((b"SCHILY.xattr.security.capability", b"x")), entry(NAME)),
    "a link to nothing": archive(entry(NAME, tarfile.SYMTYPE, "")),
    "a link with a very long target": archive(
        pax((b"linkpath", b"x" * 5000)), entry(NAME, tarfile.SYMTYPE, "y")
    ),
    "a great extended header": archive(pax((b"comment", b"x" * 70_000)), entry(NAME)),
    "many records": archive(pax(raw=record(b"k", b"v") * 10_000), entry(NAME)),
    "deep directories": deep(45) + b"",
    "two files": archive(entry(NAME, data=b"x"), entry("b", data=b"x")),
    "something behind the end": archive(entry(NAME, data=b"x")) + entry("b", data=b"x"),
    "zeros without end": archive(directory()) + bytes(20_000),
    "nothing": archive(),
    "no bytes": b"",
    "no archive": b"no archive" * 100,
    "a cut archive": entry(NAME, data=b"x" * 4096)[:1500],
    "an archive without its end": entry(NAME, data=b"x"),
}
LIMITS = CopyLimits(archive_bytes=1 << 20, entries=100, depth=40, path_bytes=4096)


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_leaves_nothing(tmp_path: Path, hostile: bytes) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / ".bashrc").write_text("mine")
    (tmp_path / "outside").write_text("mine")

    for target in (inside, inside / "target"):
        with pytest.raises(RequestInvalid):
            unpack([hostile], target, name=NAME, limits=LIMITS)

        assert [path.name for path in inside.iterdir()] == [".bashrc"]
        assert (inside / ".bashrc").read_text() == "mine"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["inside", "outside"]


def endless(*beginning: bytes, again: bytes) -> Iterator[bytes]:
    yield from beginning
    while True:
        yield again


ENDLESS = {
    "content": (
        endless(header(NAME.encode(), size=4 << 30), again=bytes(1 << 16)),
        "more than 1048576",
    ),
    "entries": (
        (
            piece
            for pieces in (
                [directory()],
                (entry(f"{NAME}/{number}") for number in range(10**9)),
            )
            for piece in pieces
        ),
        "more than 100 entries",
    ),
    "zeros behind the end": (
        endless(archive(directory()), again=bytes(1 << 16)),
        "something follows its end",
    ),
}


@pytest.mark.parametrize(("chunks", "refusal"), ENDLESS.values(), ids=ENDLESS)
def test_an_archive_without_end_is_not_read_to_its_end(
    tmp_path: Path, chunks: Iterator[bytes], refusal: str
) -> None:
    with pytest.raises((LimitExceeded, RequestInvalid), match=refusal):
        unpack(chunks, tmp_path / NAME, name=NAME, limits=LIMITS)

    assert list(tmp_path.iterdir()) == []


def test_more_than_the_limit_is_refused_with_a_way_out(tmp_path: Path) -> None:
    limits = CopyLimits(archive_bytes=4096)

    with pytest.raises(LimitExceeded, match="4096") as failure:
        unpack([archive(entry(NAME, data=b"x" * 4096))], tmp_path / "t", name=NAME, limits=limits)

    assert "RUN:/PATH -" in failure.value.hint
    assert unpack([archive(entry(NAME, data=b"x"))], tmp_path / "t", name=NAME, limits=limits) == 1


@given(
    st.lists(st.sampled_from([*HOSTILE.values(), directory(), entry(NAME, data=b"z")]), max_size=4)
)
def test_whatever_comes_touches_nothing_but_the_name(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    place = tmp_path_factory.mktemp("place")
    (place / ".bashrc").write_text("mine")

    try:
        unpack([b"".join(parts), END], place / NAME, name=NAME, limits=LIMITS)
        left = {".bashrc", NAME}
    except LnsError:
        left = {".bashrc"}

    assert {path.name for path in place.iterdir()} == left
    assert (place / ".bashrc").read_text() == "mine"


def test_a_directory_merges_with_an_existing_one(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").write_text("mine")

    unpack([archive(directory("d"), entry("d/f", data=b"x"))], tmp_path / "d", name="d")

    assert {path.name for path in (tmp_path / "d").iterdir()} == {"mine", "f"}


@pytest.mark.parametrize("is_directory", [True, False])
def test_a_file_and_a_directory_do_not_replace_each_other(
    tmp_path: Path, is_directory: bool
) -> None:
    place = tmp_path / "place"
    if is_directory:
        place.mkdir()
    else:
        place.write_text("mine")
    sent = entry(NAME, data=b"x") if is_directory else directory()

    with pytest.raises(RequestInvalid, match="place"):
        unpack([archive(sent)], place, name=NAME)

    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert place.is_dir() is is_directory


def test_special_files_of_this_machine_are_not_sent(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(RequestInvalid):
        pack(tmp_path, "copy", io.BytesIO())


def test_a_target_whose_directory_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as failure:
        unpack([], tmp_path / "none" / "x", name="x")

    assert failure.value.filename == str(tmp_path / "none")


def test_a_copy_leaves_what_the_host_keeps_of_its_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserve, "KEPT_BYTES", 1 << 60)
    monkeypatch.setattr(reserve, "_SMALL", 1)

    with pytest.raises(CapacityExhausted):
        unpack([archive(entry(NAME, data=b"x"))], tmp_path, name=NAME)

    assert list(tmp_path.iterdir()) == []
