"""What archives of every format say, and what becomes of it."""

import base64
import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from services.archives.limits import ArchiveUnsafe, TarLimits
from services.archives.stream import ByteStream
from services.archives.tar import TarReader
from services.materializer.composefs.tree import iter_tree
from services.materializer.composefs.verity import verity_digest
from services.materializer.layers.entries import Entry, Link, Put
from services.materializer.layers.ingest import ingest_layer
from services.materializer.layers.limits import LayerLimits
from services.materializer.layers.names import Hide, Opaque
from services.materializer.merge import Merger
from tests.support.tars import (
    archive,
    base256,
    entry,
    gnu_long,
    header,
    ingest,
    layer,
    names,
    octal,
    padded,
    pax,
)

V7 = bytes(8)
GNU = b"ustar  \0"


def only(data: bytes, directory: Path) -> Put:
    """The one entry of an archive."""
    (found,) = ingest(data, directory).entries
    assert isinstance(found, Put)
    return found


@pytest.mark.parametrize("magic", [V7, GNU, b"ustar\x0000"], ids=["V7", "GNU", "ustar"])
def test_a_file_has_what_its_header_says(magic: bytes, tmp_path: Path) -> None:
    found = only(
        archive(entry(b"./d/f", b"hi", mode=0o4755, uid=1000, gid=70000, mtime=1234, magic=magic)),
        tmp_path,
    )

    assert found.path == b"/d/f"
    inode = found.inode
    assert (inode.mode, inode.uid, inode.gid) == (0o104755, 1000, 70000)
    assert (inode.mtime, inode.mtime_nsec, inode.size) == (1234, 0, 2)
    assert inode.content == b"hi"


def test_ustar_joins_prefix_and_name(tmp_path: Path) -> None:
    assert only(archive(entry(b"name", prefix=b"a/b")), tmp_path).path == b"/a/b/name"


def test_gnu_has_no_prefix(tmp_path: Path) -> None:
    assert only(archive(entry(b"name", prefix=b"a/b", magic=GNU)), tmp_path).path == b"/name"


def test_v7_writes_directories_as_files_with_a_slash(tmp_path: Path) -> None:
    found = only(archive(entry(b"d/", kind=b"\0", magic=V7, mode=0o700)), tmp_path)

    assert (found.path, found.inode.mode) == (b"/d", 0o40700)


def test_every_kind_of_file_is_kept(tmp_path: Path) -> None:
    found = ingest(
        archive(
            entry(b"dir", kind=b"5", mode=0o1777),
            entry(b"fifo", kind=b"6", mode=0o600),
            entry(b"null", kind=b"3", major=1, minor=3),
            entry(b"disk", kind=b"4", major=259, minor=0x12345, magic=GNU),
            entry(b"link", kind=b"2", link=b"../../anywhere//x", mode=0o777),
            entry(b"contiguous", b"x", kind=b"7"),
            entry(b"hard", kind=b"1", link=b"./contiguous"),
        ),
        tmp_path,
    ).entries

    inodes = {one.path: one.inode for one in found if isinstance(one, Put)}
    assert inodes[b"/dir"].mode == 0o41777
    assert inodes[b"/fifo"].mode == 0o10600
    assert (inodes[b"/null"].mode, inodes[b"/null"].rdev) == (0o20644, os.makedev(1, 3))
    assert inodes[b"/disk"].rdev == os.makedev(259, 0x12345)
    assert (inodes[b"/link"].payload, inodes[b"/link"].size) == (b"../../anywhere//x", 17)
    assert inodes[b"/contiguous"].content == b"x"
    assert found[-1] == Link(b"/hard", b"/contiguous")


def test_names_are_bytes(tmp_path: Path) -> None:
    data = archive(
        entry(b"latin-\xe9"),
        pax((b"path", b"pax-\xff\xfe")),
        entry(b"x"),
        pax((b"hdrcharset", b"BINARY"), (b"path", b"\x80\x81")),
        entry(b"x"),
        gnu_long(b"L", "ünïcode-".encode() * 20 + b"\0"),
        entry(b"x"),
    )

    found = [one.path for one in ingest(data, tmp_path).entries]

    assert found == [
        b"/latin-\xe9",
        b"/pax-\xff\xfe",
        b"/\x80\x81",
        b"/" + "ünïcode-".encode() * 20,
    ]


def test_a_leading_slash_is_relative_to_the_root(tmp_path: Path) -> None:
    """kaniko writes `/` and links to `/usr/a`; bazel, distroless and nix names such as `/usr`."""
    data = archive(
        entry(b"/", kind=b"5", mode=0o711),
        entry(b"/usr", kind=b"5"),
        entry(b"//usr//a", b"x"),
        entry(b"usr/b", kind=b"1", link=b"/usr/a"),
        entry(b"/usr/c", kind=b"1", link=b"usr/a"),
        entry(b"/usr/.wh.d"),
        pax((b"path", b"/etc/e"), (b"linkpath", b"//usr/a")),
        entry(b"x", kind=b"1"),
    )

    found = ingest(data, tmp_path).entries

    assert names(found) == ["", "/usr", "/usr/a", "/usr/b", "/usr/c", "/usr/d", "/etc/e"]
    assert {one.target for one in found if isinstance(one, Link)} == {b"/usr/a"}
    assert isinstance(found[0], Put)
    assert found[0].inode.mode == 0o40711


@pytest.mark.parametrize("name", [b"", b".", b"./", b"/", b"/.", b"//./"])
def test_the_root_has_many_names(name: bytes, tmp_path: Path) -> None:
    assert only(archive(entry(name, kind=b"5", mode=0o700)), tmp_path).path == b""


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (entry(b"f", b"old"), entry(b"f", b"new")),
        (entry(b"f", b"old"), entry(b"/f", b"new")),
        (entry(b"f", kind=b"2", link=b"x"), entry(b"./f", b"new")),
        (entry(b"f", kind=b"5"), entry(b"f", b"new")),
        (entry(b"f", kind=b"6"), entry(b"f", b"new")),
        (entry(b"f", kind=b"1", link=b"g"), entry(b"f", b"new")),
    ],
)
def test_of_two_entries_for_one_path_the_later_counts(
    first: bytes, then: bytes, tmp_path: Path
) -> None:
    """`tar --append` writes such archives, and so did early versions of bazel's rules."""
    merger = Merger()

    merger.add_layer(ingest(archive(entry(b"g", b"g"), first, then), tmp_path).entries)

    inode = merger.find(b"/f")
    assert inode is not None
    assert (inode.content, inode.children) == (b"new", None)


def test_a_file_may_become_a_directory_in_one_layer(tmp_path: Path) -> None:
    data = archive(entry(b"f", b"x"), entry(b"f", kind=b"5"), entry(b"f/y", b"y"))
    merger = Merger()

    merger.add_layer(ingest(data, tmp_path).entries)

    inode = merger.find(b"/f/y")
    assert inode is not None
    assert inode.content == b"y"


def test_files_of_several_names_come_out_of_aufs_records(tmp_path: Path) -> None:
    """Layers of docker's days on AUFS keep them in a directory of its own."""
    data = archive(
        entry(b".wh..wh.aufs", mode=0o444),
        entry(b".wh..wh.orph/", kind=b"5"),
        entry(b".wh..wh.plnk/", kind=b"5"),
        entry(b".wh..wh.plnk/100.7", b"seven" * 30, mode=0o755),
        entry(b".wh..wh.plnk/200.7", kind=b"1", link=b".wh..wh.plnk/100.7"),
        entry(b"bin/a", kind=b"1", link=b".wh..wh.plnk/100.7"),
        entry(b"bin/b", kind=b"1", link=b"/.wh..wh.plnk/100.7"),
        entry(b"bin/c", kind=b"1", link=b"bin/a"),
        entry(b"bin/d", b"d"),
        entry(b".wh..wh.plnk/8", kind=b"1", link=b"bin/d"),
        entry(b"bin/e", kind=b"1", link=b".wh..wh.plnk/8"),
        entry(b"etc/.wh.gone", kind=b"1", link=b".wh..wh.aufs"),
        entry(b"etc/.wh..wh..opq", kind=b"1", link=b".wh..wh.aufs"),
    )

    found = ingest(data, tmp_path)

    assert names(found.entries) == [
        *("/bin/a", "/bin/b", "/bin/c", "/bin/d", "/bin/e"),
        *("/etc/gone", "/etc"),
    ]
    merger = Merger()
    merger.add_layer(found.entries)
    tree = merger.finish()
    sizes = {path: (inode.size, inode.nlink) for path, inode, _ in iter_tree(tree)}
    assert sizes[b"/bin/a"] == sizes[b"/bin/b"] == sizes[b"/bin/c"] == (150, 3)
    assert sizes[b"/bin/d"] == sizes[b"/bin/e"] == (1, 2)


@pytest.mark.parametrize(
    "end",
    [b"", bytes(512), bytes(1024), bytes(20 * 512), bytes(100)],
    ids=["none", "one block", "two", "a record", "part of a block"],
)
def test_a_layer_may_end_without_the_mark(end: bytes, tmp_path: Path) -> None:
    """Some builders leave it out; that nothing is missing is what the diffID says."""
    data = entry(b"a", b"x" * 700) + entry(b"b", b"y" * 700)

    assert names(ingest(data + end, tmp_path).entries) == ["/a", "/b"]


def test_the_last_file_may_be_without_padding(tmp_path: Path) -> None:
    data = entry(b"a", b"x" * 700)[: 512 + 700]

    assert ingest(data, tmp_path).entries[0].path == b"/a"


def test_an_archive_that_no_digest_proves_must_have_its_end() -> None:
    data = entry(b"a", b"x" * 700)

    with pytest.raises(ArchiveUnsafe, match="mark is missing"):
        list(TarReader(ByteStream(iter([data])), TarLimits()))


def test_an_archive_of_nothing_but_a_global_header_is_empty(tmp_path: Path) -> None:
    """What `git archive` makes of an empty tree."""
    assert ingest(archive(pax((b"comment", b"0" * 40), kind=b"g")), tmp_path).entries == []


def test_dots_and_slashes_mean_nothing(tmp_path: Path) -> None:
    data = archive(entry(b"./", kind=b"5"), entry(b".//a/./b//", kind=b"5"), entry(b"a/b/./c"))

    assert names(ingest(data, tmp_path).entries) == ["", "/a/b", "/a/b/c"]


def test_a_directory_may_be_listed_twice(tmp_path: Path) -> None:
    data = archive(entry(b"d", kind=b"5", mode=0o700), entry(b"d/", kind=b"5", mode=0o755))

    modes = [one.inode.mode for one in ingest(data, tmp_path).entries if isinstance(one, Put)]

    assert modes == [0o40700, 0o40755]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"1", (1, 0)),
        (b"1.5", (1, 500_000_000)),
        (b"1234567890.123456789", (1234567890, 123456789)),
        (b"1.1234567899", (1, 123456789)),
        (b"-1", (-1, 0)),
        (b"-1.25", (-2, 750_000_000)),
        (b"-0.000000001", (-1, 999_999_999)),
        (b"0.", (0, 0)),
    ],
)
def test_extended_times_have_nanoseconds(
    value: bytes, expected: tuple[int, int], tmp_path: Path
) -> None:
    inode = only(archive(pax((b"mtime", value)), entry(b"f", mtime=7)), tmp_path).inode

    assert (inode.mtime, inode.mtime_nsec) == expected


def test_large_numbers_are_read_in_base_256(tmp_path: Path) -> None:
    inode = only(
        archive(entry(b"f", uid=base256(3_000_000, 8), mtime=base256(-86400, 12))), tmp_path
    ).inode

    assert (inode.uid, inode.mtime) == (3_000_000, -86400)


def test_extended_headers_overrule_the_header(tmp_path: Path) -> None:
    data = archive(
        pax((b"size", b"3"), (b"uid", b"70000"), (b"gid", b"80000"), (b"linkpath", b"unused")),
        header(b"f", size=0, uid=1),
        padded(b"abc"),
    )

    inode = only(data, tmp_path).inode

    assert (inode.content, inode.uid, inode.gid) == (b"abc", 70000, 80000)


def test_global_headers_and_empty_values_mean_nothing(tmp_path: Path) -> None:
    data = archive(
        pax((b"path", b"global"), (b"comment", b"c"), kind=b"g"),
        pax((b"path", b""), (b"mtime", b"")),
        entry(b"f", mtime=5),
    )

    found = only(data, tmp_path)

    assert (found.path, found.inode.mtime) == (b"/f", 5)


def test_extended_attributes_come_from_both_forms(tmp_path: Path) -> None:
    data = archive(
        pax(
            (b"SCHILY.xattr.user.both", b"star"),
            (b"LIBARCHIVE.xattr.user.both", base64.b64encode(b"libarchive")),
            (b"LIBARCHIVE.xattr.user.%41%3d", base64.b64encode(b"\0\xff").rstrip(b"=")),
            (b"SCHILY.xattr.security.capability", b"\x01\x00\x00\x02="),
            (b"SCHILY.xattr.user.empty", b""),
            (b"SCHILY.acl.access", b"user::rw-"),
        ),
        entry(b"f"),
    )

    assert only(data, tmp_path).inode.xattrs == {
        b"user.both": b"star",
        b"user.A=": b"\0\xff",
        b"security.capability": b"\x01\x00\x00\x02=",
        b"user.empty": b"",
    }


CONTENT = b"A" * 5000 + bytes(10_000) + b"B" * 10 + bytes(4990)
SEGMENTS = [(0, 5000), (15_000, 10)]
STORED = b"A" * 5000 + b"B" * 10


def gnu_sparse() -> bytes:
    """The content in GNU's own sparse form."""
    fields = b"".join(octal(offset, 12) + octal(size, 12) for offset, size in SEGMENTS)
    gnu = bytes(41) + fields.ljust(96, b"\0") + b"\0" + octal(len(CONTENT), 12)
    return header(b"f", kind=b"S", size=len(STORED), magic=GNU, gnu=gnu) + padded(STORED)


def gnu_sparse_extended() -> bytes:
    """The same in pieces of 1,000 bytes, with a block that continues the map."""
    pieces = [(start, 1000) for start in range(0, 5000, 1000)] + [(15_000, 10)]
    fields = [octal(offset, 12) + octal(size, 12) for offset, size in pieces]
    gnu = bytes(41) + b"".join(fields[:4]) + b"\1" + octal(len(CONTENT), 12)
    more = b"".join(fields[4:]).ljust(504, b"\0") + bytes(8)
    return header(b"f", kind=b"S", size=len(STORED), magic=GNU, gnu=gnu) + more + padded(STORED)


def pax_sparse(version: str) -> bytes:
    """The content in one of the three forms with extended headers."""
    size = str(len(CONTENT)).encode()
    flat = [str(number).encode() for segment in SEGMENTS for number in segment]
    if version == "0.0":
        repeated = [
            pair
            for offset, length in zip(flat[::2], flat[1::2], strict=True)
            for pair in ((b"GNU.sparse.offset", offset), (b"GNU.sparse.numbytes", length))
        ]
        return pax((b"GNU.sparse.size", size), *repeated) + entry(b"f", STORED)
    if version == "0.1":
        return pax(
            (b"GNU.sparse.size", size),
            (b"GNU.sparse.name", b"f"),
            (b"GNU.sparse.map", b",".join(flat)),
        ) + entry(b"GNUSparseFile.0/f", STORED)
    in_data = padded(b"\n".join([str(len(SEGMENTS)).encode(), *flat, b""]))
    return pax(
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", b"f"),
        (b"GNU.sparse.realsize", size),
    ) + entry(b"GNUSparseFile.0/f", in_data + STORED)


@pytest.mark.parametrize(
    "member",
    [gnu_sparse(), gnu_sparse_extended(), *map(pax_sparse, ("0.0", "0.1", "1.0"))],
    ids=["GNU", "GNU, extended", "PAX 0.0", "PAX 0.1", "PAX 1.0"],
)
def test_sparse_files_of_every_form_have_their_content(member: bytes, tmp_path: Path) -> None:
    ingested = ingest(archive(member, entry(b"after", b"x" * 70)), tmp_path)

    first, second = ingested.entries
    assert isinstance(first, Put)
    assert (first.path, first.inode.size) == (b"/f", len(CONTENT))
    assert first.inode.digest == verity_digest(CONTENT)
    assert ingested.objects[verity_digest(CONTENT).hex()] == CONTENT
    assert second.path == b"/after"


def test_a_sparse_file_of_nine_gigabytes_takes_no_space(tmp_path: Path) -> None:
    size = 9 << 30
    gnu = bytes(41) + (octal(0, 12) + octal(1, 12)).ljust(96, b"\0") + b"\0" + octal(size, 12)
    data = archive(header(b"f", kind=b"S", size=1, magic=GNU, gnu=gnu) + padded(b"x"))

    facts = ingest_layer(
        io.BytesIO(data),
        tmp_path,
        diff_id=hashlib.sha256(data).hexdigest(),
        limits=LayerLimits(),
    )

    assert facts.objects_bytes > size
    assert (tmp_path / "objects.erofs").stat().st_blocks * 512 < 1 << 20


def test_whiteouts_and_opaque_marks_are_entries_of_their_own(tmp_path: Path) -> None:
    data = archive(
        entry(b"d/.wh.gone"),
        entry(b"e/.wh..wh..opq"),
        entry(b".wh..wh..opq"),
        entry(b".wh.d"),
        entry(b"d/x.wh.y"),
    )

    found: list[Entry] = ingest(data, tmp_path).entries

    assert found[:4] == [Hide(b"/d/gone"), Opaque(b"/e"), Opaque(b""), Hide(b"/d")]
    assert names(found[4:]) == ["/d/x.wh.y"]


def test_small_files_stay_with_their_entry(tmp_path: Path) -> None:
    ingested = ingest(
        archive(entry(b"empty"), entry(b"small", b"s" * 64), entry(b"large", b"l" * 65)), tmp_path
    )

    inodes = [one.inode for one in ingested.entries if isinstance(one, Put)]
    assert [inode.content for inode in inodes] == [None, b"s" * 64, None]
    digest = verity_digest(b"l" * 65)
    assert (inodes[2].digest, inodes[2].payload) == (
        digest,
        f"{digest.hex()[:2]}/{digest.hex()[2:]}".encode(),
    )
    assert ingested.objects == {digest.hex(): b"l" * 65}


def test_an_empty_layer_is_a_layer(tmp_path: Path) -> None:
    for number, data in enumerate((b"", bytes(512), bytes(1024), bytes(10240))):
        directory = tmp_path / str(number)
        directory.mkdir()
        assert ingest(data, directory).entries == []
        assert [path.name for path in directory.iterdir()] == ["entries"]


def test_what_follows_the_end_is_hashed_and_ignored(tmp_path: Path) -> None:
    assert names(ingest(archive(entry(b"f")) + b"garbage" * 1000, tmp_path).entries) == ["/f"]


def test_data_behind_links_and_directories_is_no_data(tmp_path: Path) -> None:
    data = archive(header(b"d", kind=b"5", size=512), header(b"s", kind=b"2", link=b"x", size=9))

    assert names(ingest(data, tmp_path).entries) == ["/d", "/s"]


@pytest.mark.parametrize("archive_format", ["v7", "ustar", "gnu", "oldgnu", "posix"])
def test_archives_of_gnu_tar_are_read(archive_format: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    (tree / "dir" / "file").write_bytes(b"content" * 1000)
    (tree / "link").symlink_to("dir/file")
    (tree / "hard").hardlink_to(tree / "dir" / "file")
    if archive_format != "v7":
        os.mkfifo(tree / "fifo")
    if archive_format in ("gnu", "posix"):
        (tree / ("long" * 40)).write_bytes(b"x")
        with (tree / "sparse").open("wb") as file:
            file.truncate(1 << 20)
            file.seek(300_000)
            file.write(b"data")
    options = [] if archive_format in ("v7", "ustar") else ["--sparse"]
    data = subprocess.run(
        ["tar", "-cf", "-", "--sort=name", f"--format={archive_format}", *options, "-C", tree, "."],
        check=True,
        capture_output=True,
    ).stdout
    target = tmp_path / "layer"
    target.mkdir()

    ingested = ingest(data, target)

    assert set(names(ingested.entries)) == {
        "",
        *("/" + str(path.relative_to(tree)) for path in tree.rglob("*")),
    }
    assert ingested.objects[verity_digest(b"content" * 1000).hex()] == b"content" * 1000
    if archive_format in ("gnu", "posix"):
        sparse = (tree / "sparse").read_bytes()
        assert ingested.objects[verity_digest(sparse).hex()] == sparse


def test_archives_of_python_are_read(tmp_path: Path) -> None:
    data = layer(
        ("usr/", {"kind": tarfile.DIRTYPE, "mode": 0o755}),
        ("usr/bin/été", {"content": b"x" * 100, "mode": 0o4755, "pax": {"mtime": "5.25"}}),
        ("usr/lib", {"kind": tarfile.SYMTYPE, "link": "bin"}),
    )

    found = ingest(data, tmp_path).entries

    assert names(found) == ["/usr", "/usr/bin/été", "/usr/lib"]
    assert isinstance(found[1], Put)
    assert (found[1].inode.mtime, found[1].inode.mtime_nsec) == (5, 250_000_000)
