"""Layers that must be refused, each by the name of the entry at fault."""

import base64
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.errors import ContentCorrupt, LayerUnsafe, LayerUnsupported
from services.materializer.layers.limits import LayerLimits
from tests.support.outcomes import passes_or
from tests.support.tars import (
    END,
    archive,
    base256,
    entry,
    gnu_long,
    header,
    ingest,
    octal,
    padded,
    pax,
    record,
)

SMALL = LayerLimits(
    entries=50,
    layer_bytes=1 << 20,
    file_bytes=100_000,
    total_file_bytes=150_000,
    path_bytes=1000,
    depth=30,
    header_bytes=40_000,
    list_bytes=60_000,
    sparse_segments=10,
)

DIRECTORY = {"kind": b"5", "mode": 0o755}
SYMLINK = {"kind": b"2"}
LINK = {"kind": b"1"}


def sparse_map(*segments: tuple[int, int], real: int, extended: bytes = b"\0") -> bytes:
    """GNU's fields behind the prefix of a sparse header."""
    parts = b"".join(octal(offset, 12) + octal(size, 12) for offset, size in segments)
    return bytes(41) + parts.ljust(96, b"\0") + extended + octal(real, 12)


HOSTILE: dict[str, tuple[bytes, str, str]] = {
    # Leaving the root, in every spelling.
    "parent": (archive(entry(b"../evil")), "../evil", "its path holds .."),
    "parent inside": (archive(entry(b"a/../../evil")), "a/../../evil", "its path holds .."),
    "parent that stays inside": (archive(entry(b"a/../b")), "a/../b", "its path holds .."),
    "parent at the end": (archive(entry(b"a/..", **DIRECTORY)), "a/..", "its path holds .."),
    "parent alone": (archive(entry(b"..", **DIRECTORY)), "..", "its path holds .."),
    "parent behind dots": (archive(entry(b"./../evil")), "./../evil", "its path holds .."),
    "parent with slashes": (
        archive(entry(b"a//..//..//evil")),
        "a//..//..//evil",
        "its path holds ..",
    ),
    "parent behind a slash": (archive(entry(b"/../evil")), "/../evil", "its path holds .."),
    "parent behind slashes": (
        archive(entry(b"//etc//../../evil")),
        "//etc//../../evil",
        "its path holds ..",
    ),
    "parent in a prefix": (archive(entry(b"evil", prefix=b"..")), "../evil", "its path holds .."),
    "parent in a long name": (
        archive(gnu_long(b"L", b"../evil\0"), entry(b"x")),
        "../evil",
        "its path holds ..",
    ),
    "parent in an extended header": (
        archive(pax((b"path", b"../evil")), entry(b"x")),
        "../evil",
        "its path holds ..",
    ),
    "parent in a sparse name": (
        archive(
            pax(
                (b"GNU.sparse.name", b"../e"), (b"GNU.sparse.map", b""), (b"GNU.sparse.size", b"0")
            ),
            entry(b"x"),
        ),
        "../e",
        "its path holds ..",
    ),
    "parent in a whiteout": (archive(entry(b"../.wh.evil")), "../.wh.evil", "its path holds .."),
    # Links that lead out, and entries that follow links.
    "hard link out": (
        archive(entry(b"l", link=b"../../etc/shadow", **LINK)),
        "l",
        "its hard link target holds ..",
    ),
    "hard link out by an absolute path": (
        archive(entry(b"l", link=b"/../x", **LINK)),
        "l",
        "its hard link target holds ..",
    ),
    "hard link to itself by an absolute path": (
        archive(entry(b"l", link=b"/l", **LINK)),
        "l",
        "it is a hard link to itself or the root",
    ),
    "hard link out by long link": (
        archive(gnu_long(b"K", b"../x\0"), entry(b"l", **LINK)),
        "l",
        "its hard link target holds ..",
    ),
    "hard link out by extended header": (
        archive(pax((b"linkpath", b"../x")), entry(b"l", **LINK)),
        "l",
        "its hard link target holds ..",
    ),
    "hard link to itself": (
        archive(entry(b"l", link=b"./l", **LINK)),
        "l",
        "it is a hard link to itself or the root",
    ),
    "hard link to the root": (
        archive(entry(b"l", link=b".", **LINK)),
        "l",
        "it is a hard link to itself or the root",
    ),
    "hard link to nothing": (archive(entry(b"l", **LINK)), "l", "its hard link target is empty"),
    "hard link to a directory": (
        archive(entry(b"d", **DIRECTORY), entry(b"l", link=b"d", **LINK)),
        "l",
        "it is a hard link to a directory",
    ),
    "hard link to a device": (
        archive(entry(b"d", kind=b"4", major=8, minor=1), entry(b"l", link=b"d", **LINK)),
        "l",
        "it is a hard link to a block device",
    ),
    "hard link to a fifo": (
        archive(entry(b"p", kind=b"6"), entry(b"l", link=b"p", **LINK)),
        "l",
        "it is a hard link to a fifo",
    ),
    "hard link through a symlink": (
        archive(entry(b"s", link=b"/etc", **SYMLINK), entry(b"l", link=b"s/shadow", **LINK)),
        "l",
        "its target lies below a symbolic link",
    ),
    "below a symlink": (
        archive(entry(b"s", link=b"/etc", **SYMLINK), entry(b"s/passwd")),
        "s/passwd",
        "it lies below a symbolic link",
    ),
    "deep below a symlink": (
        archive(entry(b"s", link=b"..", **SYMLINK), entry(b"s/a/b/c/d")),
        "s/a/b/c/d",
        "it lies below a symbolic link",
    ),
    "below a hard link": (
        archive(entry(b"f"), entry(b"l", link=b"f", **LINK), entry(b"l/x")),
        "l/x",
        "it lies below a hard link",
    ),
    "below a file": (archive(entry(b"f"), entry(b"f/x")), "f/x", "it lies below a file"),
    "below a device": (
        archive(entry(b"d", kind=b"3", major=1, minor=3), entry(b"d/x")),
        "d/x",
        "it lies below a character device",
    ),
    "whiteout below a symlink": (
        archive(entry(b"s", link=b"/", **SYMLINK), entry(b"s/.wh.etc")),
        "s/.wh.etc",
        "it lies below a symbolic link",
    ),
    "opaque mark below a symlink": (
        archive(entry(b"s", link=b"/", **SYMLINK), entry(b"s/.wh..wh..opq")),
        "s/.wh..wh..opq",
        "it lies below a symbolic link",
    ),
    "symlink over a directory in use": (
        archive(entry(b"d/x"), entry(b"d", link=b"/etc", **SYMLINK)),
        "d",
        "it replaces a directory that the layer has put entries into",
    ),
    "symlink without target": (
        archive(entry(b"s", **SYMLINK)),
        "s",
        "a symbolic link's target must have 1 to 4095 bytes and no NUL",
    ),
    "symlink with a long target": (
        archive(pax((b"linkpath", b"t" * 4096)), entry(b"s", **SYMLINK)),
        "s",
        "a symbolic link's target must have 1 to 4095 bytes and no NUL",
    ),
    "symlink with a NUL": (
        archive(pax((b"linkpath", b"a\0b")), entry(b"s", **SYMLINK)),
        "s",
        "a symbolic link's target must have 1 to 4095 bytes and no NUL",
    ),
    # The same path twice: the later counts, but not with devices, nor over a directory in use.
    "directory in use, then file": (
        archive(entry(b"f/x"), entry(b"f")),
        "f",
        "it replaces a directory that the layer has put entries into",
    ),
    "directory in use by a mark, then file": (
        archive(entry(b"f/.wh.x"), entry(b"f")),
        "f",
        "it replaces a directory that the layer has put entries into",
    ),
    "directory in use deeper, then file": (
        archive(entry(b"f/a/b/x"), entry(b"f/a")),
        "f/a",
        "it replaces a directory that the layer has put entries into",
    ),
    "device over a file": (
        archive(entry(b"f"), entry(b"f", kind=b"3", major=1)),
        "f",
        "the layer has this path twice, and one is a device",
    ),
    "file over a device": (
        archive(entry(b"f", kind=b"3", major=1), entry(b"f")),
        "f",
        "the layer has this path twice, and one is a device",
    ),
    "device twice": (
        archive(*[entry(b"f", kind=b"4", major=1)] * 2),
        "f",
        "the layer has this path twice, and one is a device",
    ),
    "below a file that became a link": (
        archive(entry(b"f", **DIRECTORY), entry(b"f", link=b"/", **SYMLINK), entry(b"f/x")),
        "f/x",
        "it lies below a symbolic link",
    ),
    "root as a file": (archive(entry(b".")), ".", "the root must be a directory"),
    "root as a symlink": (
        archive(entry(b"./", link=b"/etc", **SYMLINK)),
        "./",
        "the root must be a directory",
    ),
    # Names.
    "empty name": (archive(entry(b"")), "", "the root must be a directory"),
    "NUL in a name": (
        archive(pax((b"path", b"a\0b")), entry(b"x")),
        "a\\x00b",
        "its path holds a NUL",
    ),
    "NUL in a long name": (
        archive(gnu_long(b"L", b"a\0b\0"), entry(b"x")),
        "././@LongLink",
        "a long name holds a NUL",
    ),
    "name over 255": (
        archive(gnu_long(b"L", b"n" * 256 + b"\0"), entry(b"x")),
        "n" * 256,
        "a name in its path is longer than 255 bytes",
    ),
    "path too long": (
        archive(pax((b"path", b"a/" * 501 + b"x")), entry(b"x")),
        "a/a",
        "its path of 1003 bytes is longer than 1000",
    ),
    "path too deep": (
        archive(gnu_long(b"L", b"a/" * 30 + b"x\0"), entry(b"x")),
        "a/a",
        "its path has more than 30 names",
    ),
    "whiteout of nothing": (archive(entry(b"d/.wh.")), "d/.wh.", "it is a whiteout of no name"),
    "whiteout of the directory": (
        archive(entry(b"d/.wh..")),
        "d/.wh..",
        "it is a whiteout of no name",
    ),
    "whiteout of the parent": (
        archive(entry(b"d/.wh...")),
        "d/.wh...",
        "it is a whiteout of no name",
    ),
    "below a whiteout": (archive(entry(b"d/.wh.x/y")), "d/.wh.x/y", "it lies below a whiteout"),
    # Numbers.
    "negative size": (
        archive(header(b"f", size=base256(-1, 12))),
        "f",
        "a size, mode or owner is negative",
    ),
    "negative size in an extended header": (
        archive(pax((b"size", b"-1")), entry(b"f")),
        "f",
        "its size is not a number",
    ),
    "size that is no number": (archive(header(b"f", size=b"12x")), "f", "its size is not a number"),
    "size that lies": (
        archive(header(b"f", size=4000)),
        "f",
        "the archive ends in the middle of it",
    ),
    "size beyond the limit": (
        archive(header(b"f", size=100_001)),
        "f",
        "a file of 100001 bytes is more than 100000",
    ),
    "enormous size": (
        archive(header(b"f", size=base256(1 << 80, 12))),
        "f",
        "a file of 1208925819614629174706176 bytes is more than 100000",
    ),
    "sizes together beyond the limit": (
        archive(entry(b"a", bytes(90_000)), entry(b"f", bytes(90_000))),
        "f",
        "files have more than 150000 bytes together",
    ),
    "negative owner": (
        archive(header(b"f", uid=base256(-2, 8))),
        "f",
        "a size, mode or owner is negative",
    ),
    "owner out of range": (
        archive(header(b"f", gid=base256(1 << 32, 8))),
        "f",
        "its owner or time is out of range",
    ),
    "owner out of range in an extended header": (
        archive(pax((b"uid", b"4294967296")), entry(b"f")),
        "f",
        "its owner or time is out of range",
    ),
    "time out of range": (
        archive(header(b"f", mtime=base256(1 << 70, 12))),
        "f",
        "its owner or time is out of range",
    ),
    "time that is no number": (
        archive(pax((b"mtime", b"1e9")), entry(b"f")),
        "f",
        "its time is not a number",
    ),
    "malformed base 256": (
        archive(header(b"f", size=b"\xc0" + bytes(11))),
        "f",
        "its size is not a number",
    ),
    "device number out of range": (
        archive(header(b"f", kind=b"3", major=0x1000)),
        "f",
        "the device number 4096:0 is out of range",
    ),
    "checksum that lies": (
        archive(header(b"f", checksum=b"000001\0 ")),
        "f",
        "the checksum of its header is wrong",
    ),
    "checksum that is no number": (
        archive(header(b"f", checksum=b"zzzzzzzz")),
        "f",
        "its checksum is not a number",
    ),
    "no header at all": (
        b"This is not a tar archive. " * 40,
        "This is",
        "its checksum is not a number",
    ),
    # Extended headers.
    "extended header too large": (
        archive(pax(raw=b"0" * 40_001), entry(b"f")),
        "pax",
        "an extended header of 40001 bytes is more than 40000",
    ),
    "long name too large": (
        archive(gnu_long(b"L", b"n" * 40_001), entry(b"f")),
        "././@LongLink",
        "an extended header of 40001 bytes is more than 40000",
    ),
    "record without length": (
        archive(pax(raw=b"abc=def\n"), entry(b"f")),
        "pax",
        "a record of its extended header has no length",
    ),
    "record of length 0": (
        archive(pax(raw=b"0 a=b\n"), entry(b"f")),
        "pax",
        "a record of its extended header is malformed",
    ),
    "record shorter than itself": (
        archive(pax(raw=b"3 a=b\n"), entry(b"f")),
        "pax",
        "a record of its extended header is malformed",
    ),
    "record longer than the header": (
        archive(pax(raw=b"99 a=b\n"), entry(b"f")),
        "pax",
        "a record of its extended header is malformed",
    ),
    "record of enormous length": (
        archive(pax(raw=b"9999999999999 a=b\n"), entry(b"f")),
        "pax",
        "a record of its extended header has no length",
    ),
    "record without keyword": (
        archive(pax(raw=b"5 =b\n"), entry(b"f")),
        "pax",
        "a record of its extended header is malformed",
    ),
    "record without value": (
        archive(pax(raw=b"5 abc"), entry(b"f")),
        "pax",
        "a record of its extended header is malformed",
    ),
    "two extended headers": (
        archive(pax((b"path", b"a")), pax((b"path", b"b")), entry(b"f")),
        "pax",
        "two extended headers of one kind precede one entry",
    ),
    "extended header before nothing": (
        archive(pax((b"path", b"a"))),
        "",
        "an extended header is followed by no entry",
    ),
    "malformed global header": (
        archive(pax(raw=b"xx", kind=b"g"), entry(b"f")),
        "pax",
        "a record of its extended header has no length",
    ),
    "xattr without name": (
        archive(pax((b"SCHILY.xattr.", b"v")), entry(b"f")),
        "f",
        "the name or value of an extended attribute is empty or too long",
    ),
    "xattr with a long name": (
        archive(pax((b"SCHILY.xattr." + b"k" * 256, b"v")), entry(b"f")),
        "f",
        "the name or value of an extended attribute is empty or too long",
    ),
    "xattr that is not base64": (
        archive(pax((b"LIBARCHIVE.xattr.user.a", b"!!")), entry(b"f")),
        "f",
        "an extended attribute is not base64",
    ),
    "xattr with a NUL in its name": (
        archive(pax((b"LIBARCHIVE.xattr.user.a%00b", base64.b64encode(b"v"))), entry(b"f")),
        "f",
        "the name or value of an extended attribute is empty or too long",
    ),
    "xattrs beyond what an image can hold": (
        archive(
            # 12 bytes for the inode, and 7 beside name and value for each: one byte too many.
            pax((b"SCHILY.xattr.a", b"v" * 20_000), (b"SCHILY.xattr.b", b"v" * 12_740)),
            entry(b"f"),
        ),
        "f",
        "its extended attributes take more than 32767 bytes",
    ),
    # Sparse files.
    "sparse segments that overlap": (
        archive(
            header(
                b"f",
                kind=b"S",
                size=20,
                magic=b"ustar  \0",
                gnu=sparse_map((0, 10), (5, 10), real=100),
            )
            + padded(bytes(20))
        ),
        "f",
        "its sparse map is contradictory",
    ),
    "sparse segment behind the end": (
        archive(
            header(b"f", kind=b"S", size=10, magic=b"ustar  \0", gnu=sparse_map((95, 10), real=100))
            + padded(bytes(10))
        ),
        "f",
        "its sparse map is contradictory",
    ),
    "sparse segments that are not stored": (
        archive(
            header(b"f", kind=b"S", size=10, magic=b"ustar  \0", gnu=sparse_map((0, 20), real=100))
            + padded(bytes(10))
        ),
        "f",
        "its sparse map does not match its size",
    ),
    "sparse file that grows beyond the limit": (
        archive(
            header(
                b"f", kind=b"S", size=1, magic=b"ustar  \0", gnu=sparse_map((0, 1), real=1 << 40)
            )
            + padded(b"x")
        ),
        "f",
        "a file of 17179869184 bytes is more than 100000",
    ),
    "sparse map without end": (
        archive(
            header(
                b"f", kind=b"S", size=0, magic=b"ustar  \0", gnu=sparse_map(real=9, extended=b"\1")
            ),
            *([(octal(0, 12) * 2) * 21 + b"\1" + bytes(7)] * 3),
        ),
        "f",
        "its sparse map has more than 10 segments",
    ),
    "sparse map of a negative number": (
        archive(
            header(
                b"f",
                kind=b"S",
                size=0,
                magic=b"ustar  \0",
                gnu=bytes(41) + base256(-5, 12) + octal(0, 12) + bytes(72) + b"\0" + octal(9, 12),
            )
        ),
        "f",
        "its sparse map is contradictory",
    ),
    "sparse map of an odd count": (
        archive(pax((b"GNU.sparse.map", b"1,2,3"), (b"GNU.sparse.size", b"9")), entry(b"f")),
        "f",
        "its sparse map is incomplete",
    ),
    "sparse map out of order": (
        archive(pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.numbytes", b"1")), entry(b"f")),
        "f",
        "its sparse map is out of order",
    ),
    "sparse map that is no number": (
        archive(pax((b"GNU.sparse.map", b"a,b"), (b"GNU.sparse.size", b"9")), entry(b"f")),
        "f",
        "its sparse map is not a number",
    ),
    "sparse format of the future": (
        archive(pax((b"GNU.sparse.major", b"2"), (b"GNU.sparse.minor", b"0")), entry(b"f")),
        "f",
        "its sparse format is unknown",
    ),
    "sparse map in the data that is malformed": (
        archive(
            pax(
                (b"GNU.sparse.major", b"1"),
                (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.realsize", b"9"),
            ),
            entry(b"f", b"x" * 512),
        ),
        "f",
        "its sparse map is malformed",
    ),
    "sparse map in the data without end": (
        archive(
            pax(
                (b"GNU.sparse.major", b"1"),
                (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.realsize", b"9"),
            ),
            entry(b"f", padded(b"5\n1\n1\n")),
        ),
        "f",
        "its sparse map is malformed",
    ),
    "sparse map of too many segments": (
        archive(
            pax(
                (b"GNU.sparse.major", b"1"),
                (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.realsize", b"9"),
            ),
            entry(b"f", padded(b"99999\n")),
        ),
        "f",
        "its sparse map has more than 10 segments",
    ),
    # Kinds, counts, ends.
    "unknown type": (
        archive(entry(b"f", kind=b"Z")),
        "f",
        "entries of type b'Z' are not supported",
    ),
    "continued from another volume": (
        archive(entry(b"f", kind=b"M")),
        "f",
        "entries of type b'M' are not supported",
    ),
    "too many entries": (
        archive(*(entry(b"f%d" % i) for i in range(51))),
        "f50",
        "it is one entry more than 50",
    ),
    "an entry list that is too long": (
        archive(
            *(pax((b"SCHILY.xattr.user.a", b"\xff" * 9000)) + entry(b"f%d" % i) for i in range(9))
        ),
        "/f",
        "the entry list has more than 60000 bytes",
    ),
    "one block of zeros in the middle": (
        entry(b"a") + bytes(512) + entry(b"b") + END,
        "",
        "one block of zeros is followed by more entries",
    ),
    "end in the middle of a header": (
        entry(b"a", b"x" * 600) + header(b"b")[:300],
        "",
        "the archive ends in the middle of a header",
    ),
    "end in the middle of a file": (
        entry(b"a", b"x" * 600)[:-600],
        "a",
        "the archive ends in the middle of it",
    ),
    # AUFS's records are no way around the rules.
    "AUFS record with a hard link out": (
        archive(entry(b".wh..wh.plnk/1", link=b"../x", **LINK)),
        ".wh..wh.plnk/1",
        "its hard link target holds ..",
    ),
    "hard link to the root by an AUFS record": (
        archive(
            entry(b".wh..wh.plnk/1", link=b"/", **LINK), entry(b"l", link=b".wh..wh.plnk/1", **LINK)
        ),
        "l",
        "it is a hard link to itself or the root",
    ),
    "AUFS records of too many attributes": (
        archive(
            *(
                pax((b"SCHILY.xattr.user.a", b"\xff" * 9000)) + entry(b".wh..wh.plnk/%d" % i)
                for i in range(9)
            )
        ),
        ".wh..wh.plnk/",
        "AUFS's records take more memory than an entry list may",
    ),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_layer_is_refused_for_its_reason_by_the_name_of_the_entry(
    attack: str, tmp_path: Path
) -> None:
    data, named, reason = HOSTILE[attack]

    with pytest.raises(LayerUnsafe) as caught:
        ingest(data, tmp_path, limits=SMALL)

    assert caught.value.metadata.get("entry", "").startswith(named)
    assert reason in caught.value.message
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 1000


def test_a_path_as_deep_as_allowed_is_taken(tmp_path: Path) -> None:
    ingest(archive(gnu_long(b"L", b"a/" * 29 + b"x\0"), entry(b"x")), tmp_path, limits=SMALL)


FRIENDLY = archive(
    entry(b"d", kind=b"5"),
    pax((b"path", b"d/a"), (b"SCHILY.xattr.user.a", b"v")),
    entry(b"x", b"content " * 90),
    gnu_long(b"L", b"d/" + b"n" * 120 + b"\0"),
    entry(b"x", b"more"),
    header(b"sparse", kind=b"S", size=3, magic=b"ustar  \0", gnu=sparse_map((5000, 3), real=9000)),
    padded(b"abc"),
    entry(b"l", kind=b"1", link=b"d/a"),
)


def test_a_layer_cut_at_any_block_is_refused(tmp_path: Path) -> None:
    body = FRIENDLY.removesuffix(END)
    diff_id = ingest(FRIENDLY, tmp_path).diff_id

    for cut in range(1, len(body) // 512):
        with (
            tempfile.TemporaryDirectory() as directory,
            pytest.raises((LayerUnsafe, ContentCorrupt)),
        ):
            ingest(body[: 512 * cut], Path(directory), diff_id=diff_id)


@pytest.mark.parametrize("cut", [1, 100, 511, 513, 700])
def test_a_layer_cut_inside_a_block_is_refused(cut: int, tmp_path: Path) -> None:
    with pytest.raises(LayerUnsafe):
        ingest(FRIENDLY[:cut], tmp_path)


def _mutate(data: bytes, changes: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for position, value in changes:
        changed[position % len(changed)] = value
    return bytes(changed)


def _with_right_checksums(data: bytes) -> bytes:
    """Mends checksums, so that changes reach the code behind them."""
    blocks = []
    for start in range(0, len(data), 512):
        block = data[start : start + 512]
        if block[257:262] == b"ustar":
            total = sum(block[:148]) + sum(block[156:]) + 8 * 32
            block = block[:148] + f"{total:06o}".encode() + b"\0 " + block[156:]
        blocks.append(block)
    return b"".join(blocks)


@pytest.mark.parametrize("mend", [_with_right_checksums, bytes])
@given(changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=6))
@settings(max_examples=150)
def test_a_damaged_layer_is_taken_or_refused_and_nothing_else(
    mend: Callable[[bytes], bytes], changes: list[tuple[int, int]]
) -> None:
    data = mend(_mutate(FRIENDLY, changes))

    with tempfile.TemporaryDirectory() as directory, passes_or(LayerUnsafe, LayerUnsupported):
        ingest(data, Path(directory), limits=SMALL)


@given(st.binary(max_size=2000))
def test_bytes_are_a_layer_or_are_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory, passes_or(LayerUnsafe, LayerUnsupported):
        ingest(data, Path(directory), limits=SMALL)


def test_an_extended_header_of_very_many_attributes_is_refused(tmp_path: Path) -> None:
    records = io.BytesIO()
    for number in range(60_000):  # more than a mebibyte
        records.write(record(b"SCHILY.xattr.user.%d" % number, b""))

    with pytest.raises(LayerUnsafe, match="extended header"):
        ingest(archive(pax(raw=records.getvalue()), entry(b"f")), tmp_path)
