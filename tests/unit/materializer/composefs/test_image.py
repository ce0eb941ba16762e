"""Metadata images: bit for bit, and read back by a reader of their own."""

import json
import stat
from pathlib import Path

import pytest

from services.materializer.composefs.dump import parse_dump
from services.materializer.composefs.image import has_acl, inode_count, write_image
from services.materializer.composefs.tree import Inode, iter_tree
from services.materializer.composefs.verity import verity_digest
from tests.support.dumps import boundary_dumps, dump, external, line, random_dump
from tests.support.erofs_reader import Node, Reader

GOLDEN = json.loads(Path("tests/data/composefs/digests.json").read_text("ascii"))
"""Digests of the images that composefs's own C tool makes of these dumps."""

CASES = dict(boundary_dumps()) | {f"random {seed}": random_dump(seed) for seed in range(40)}


@pytest.mark.parametrize("name", CASES)
def test_an_image_has_the_digest_that_the_c_tool_gives_it(name: str) -> None:
    root = parse_dump(CASES[name])

    digests = {
        "v0": verity_digest(write_image(root, min_version=0, max_version=0)).hex(),
        "v1": verity_digest(write_image(root)).hex(),
        "default": verity_digest(write_image(root, min_version=0, max_version=1)).hex(),
    }

    assert digests == GOLDEN[name]


@pytest.mark.parametrize("name", CASES)
def test_an_image_read_back_is_the_tree(name: str) -> None:
    root = parse_dump(CASES[name])

    reader = Reader(bytes(write_image(root)))

    _assert_same(root, reader.root)


def test_writing_does_not_change_the_tree() -> None:
    root = parse_dump(CASES["whiteout"])
    before = [(path, inode.mode, dict(inode.xattrs)) for path, inode, _ in iter_tree(root)]

    first = write_image(root)
    second = write_image(root)

    assert first == second
    assert before == [(path, inode.mode, dict(inode.xattrs)) for path, inode, _ in iter_tree(root)]


def test_an_external_file_points_at_its_object() -> None:
    root = parse_dump(dump(external("/a", 100, 5)))

    node = Reader(bytes(write_image(root))).root.children[b"a"]

    digest = f"{5:064x}"
    assert node.xattrs == {
        b"trusted.overlay.metacopy": b"\x00\x24\x00\x01" + bytes.fromhex(digest),
        b"trusted.overlay.redirect": f"/{digest[:2]}/{digest[2:]}".encode(),
    }
    assert node.size == 100


def test_the_root_hides_object_directories() -> None:
    root = Reader(bytes(write_image(parse_dump(dump(line("/00")))))).root

    stubs = {name for name, node in root.children.items() if stat.S_ISCHR(node.mode)}
    assert stubs == {f"{number:02x}".encode() for number in range(1, 256)}
    assert stat.S_ISREG(root.children[b"00"].mode)
    assert root.xattrs[b"trusted.overlay.opaque"] == b"y"


def test_a_whiteout_becomes_a_marked_file_in_a_marked_directory() -> None:
    root = Reader(bytes(write_image(parse_dump(CASES["whiteout"])))).root

    directory = root.children[b"d"]
    assert stat.S_ISREG(directory.children[b"w"].mode)
    assert directory.children[b"w"].xattrs == {
        b"trusted.overlay.overlay.whiteout": b"",
        b"user.overlay.whiteout": b"",
    }
    assert directory.xattrs == {
        b"trusted.overlay.overlay.whiteouts": b"",
        b"user.overlay.whiteouts": b"",
        b"trusted.overlay.overlay.opaque": b"x",
        b"user.overlay.opaque": b"x",
    }


def test_facts_of_an_image_can_be_read_from_it() -> None:
    plain = write_image(parse_dump(dump(line("/a"), line("/b", mode="@100644", payload="/a"))))
    with_acl = write_image(parse_dump(CASES["acl"]))

    assert inode_count(plain) == 2 + 256
    assert not has_acl(plain)
    assert has_acl(with_acl)


def _assert_same(inode: Inode, node: Node) -> None:
    assert stat.S_IMODE(inode.mode) == stat.S_IMODE(node.mode)
    assert (inode.uid, inode.gid) == (node.uid, node.gid)
    assert (inode.mtime, inode.mtime_nsec) == node.mtime
    if inode.is_whiteout:
        assert stat.S_ISREG(node.mode)
        return
    assert stat.S_IFMT(inode.mode) == stat.S_IFMT(node.mode)
    if inode.children is None:
        assert inode.nlink == node.nlink
    if stat.S_ISREG(inode.mode):
        assert inode.size == node.size
        if not inode.is_external:
            expected = (inode.content or b"")[:4096]  # what does not fit, the format loses
            assert (node.data or b"")[:4096] == expected
    if stat.S_ISLNK(inode.mode):
        assert node.data == inode.payload
    assert inode.rdev == node.rdev
    kept = {key: value for key, value in inode.xattrs.items() if b"overlay." not in key}
    assert kept.items() <= node.xattrs.items()
    for name, child, is_link in inode.entries():
        if is_link:
            assert node.children[name] is not None
        else:
            _assert_same(child, node.children[name])
