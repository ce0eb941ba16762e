"""Merging layers by the rules of the OCI image layer specification."""

import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.core.errors import LayerUnsafe
from services.materializer.composefs.tree import Inode, iter_tree
from services.materializer.layers.entries import Entry, Link, Put
from services.materializer.layers.names import Hide, Opaque
from services.materializer.merge import Merger
from tests.support.tars import archive, entry, ingest, layer


def file(path: str, content: bytes = b"x", mode: int = 0o644) -> Put:
    return Put(path.encode(), Inode(stat.S_IFREG | mode, size=len(content), content=content))


def directory(path: str, mode: int = 0o755, uid: int = 0) -> Put:
    return Put(path.encode(), Inode(stat.S_IFDIR | mode, uid, mtime=7))


def symlink(path: str, target: str = "t") -> Put:
    return Put(path.encode(), Inode(stat.S_IFLNK | 0o777, payload=target.encode()))


def device(path: str) -> Put:
    return Put(path.encode(), Inode(stat.S_IFCHR | 0o600, rdev=5))


def link(path: str, target: str) -> Link:
    return Link(path.encode(), target.encode())


def hide(path: str) -> Hide:
    return Hide(path.encode())


def opaque(path: str) -> Opaque:
    return Opaque(path.encode())


def fresh(entry: Entry) -> Entry:
    if not isinstance(entry, Put):
        return entry
    old = entry.inode
    inode = Inode(old.mode, old.uid, old.gid, old.mtime, size=old.size, rdev=old.rdev)
    inode.payload, inode.content, inode.digest = old.payload, old.content, old.digest
    return Put(entry.path, inode)


def merged(*layers: list[Entry]) -> Inode:
    merger = Merger()
    for one in layers:
        merger.add_layer(map(fresh, one))  # a tree takes the inodes that it is given
    return merger.finish()


def listing(root: Inode) -> dict[str, bytes]:
    """Every path below the root with the content of files, the target of links, or `/`."""
    return {
        path.decode(): inode.content or inode.payload or b"/"
        for path, inode, _ in iter_tree(root)
        if path != b"/"
    }


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([[file("/a", b"1")], [file("/a", b"2")]], {"/a": b"2"}),
        ([[file("/a")], [hide("/a")]], {}),
        ([[file("/d/a"), file("/d/b")], [hide("/d/a")]], {"/d": b"/", "/d/b": b"x"}),
        ([[file("/d/a")], [hide("/d")]], {}),
        ([[file("/d/a")], [opaque("/d")]], {"/d": b"/"}),
        ([[file("/a")], [opaque("")]], {}),
        ([[file("/a", b"1")], [hide("/a"), file("/a", b"2")]], {"/a": b"2"}),
        ([[file("/a", b"1")], [file("/a", b"2"), hide("/a")]], {"/a": b"2"}),
        ([[file("/d/a")], [opaque("/d"), file("/d/b")]], {"/d": b"/", "/d/b": b"x"}),
        ([[file("/d/a")], [file("/d/b"), opaque("/d")]], {"/d": b"/", "/d/b": b"x"}),
        ([[file("/d/a")], [file("/d/b"), hide("/d")]], {"/d": b"/", "/d/b": b"x"}),
        ([[file("/a")], [hide("/a")], [file("/a", b"3")]], {"/a": b"3"}),
        ([[file("/d/a")], [hide("/d")], [directory("/d")]], {"/d": b"/"}),
        ([[hide("/nothing"), hide("/no/thing"), opaque("/o")]], {"/o": b"/"}),
        ([[symlink("/s")], [hide("/s/x")]], {"/s": b"t"}),
        ([[file("/a")], [directory("/a"), file("/a/b")]], {"/a": b"/", "/a/b": b"x"}),
        ([[file("/a/b")], [file("/a", b"2")]], {"/a": b"2"}),
        ([[file("/a/b")], [symlink("/a")]], {"/a": b"t"}),
        ([[symlink("/a")], [directory("/a"), file("/a/b")]], {"/a": b"/", "/a/b": b"x"}),
        ([[file("/a/b")], [directory("/a")]], {"/a": b"/", "/a/b": b"x"}),
        ([[file("/a")], [directory("/a")], [file("/a", b"3")]], {"/a": b"3"}),
        ([[file("/f")], [opaque("/f"), file("/f/x")]], {"/f": b"/", "/f/x": b"x"}),
        ([[], []], {}),
    ],
)
def test_layers_merge(layers: list[list[Entry]], expected: dict[str, bytes]) -> None:
    assert listing(merged(*layers)) == expected


def test_a_directory_over_a_directory_brings_its_metadata() -> None:
    root = merged([directory("/d", 0o700, 5), file("/d/a")], [directory("/d", 0o755, 6)])

    found = root.children[b"d"]  # type: ignore[index]  # a directory has children
    assert (found.mode, found.uid, found.mtime) == (stat.S_IFDIR | 0o755, 6, 7)


def test_the_root_takes_its_metadata_from_its_entry() -> None:
    assert merged([directory("", 0o711, 9), file("/a")]).mode == stat.S_IFDIR | 0o711


def test_a_missing_parent_is_plain() -> None:
    root = merged([file("/a/b/c")])

    for _, inode, _ in iter_tree(root):
        if inode.children is not None:
            assert (inode.mode, inode.uid, inode.gid) == (stat.S_IFDIR | 0o755, 0, 0)
            assert (inode.mtime, inode.mtime_nsec) == (0, 0)


def test_hard_links_share_an_inode_and_count_its_names() -> None:
    root = merged([file("/b/x"), link("/c", "/b/x"), link("/a", "/c")], [link("/d", "/b/x")])

    inodes = {path: (inode, is_link) for path, inode, is_link in iter_tree(root)}
    assert len({id(inodes[path][0]) for path in (b"/a", b"/b/x", b"/c", b"/d")}) == 1
    assert inodes[b"/a"][0].nlink == 4
    assert not inodes[b"/a"][1]
    assert all(inodes[path][1] for path in (b"/b/x", b"/c", b"/d"))


def test_the_first_name_of_an_inode_is_the_first_in_depth_first_order() -> None:
    root = merged([file("/c"), link("/b/z/x", "/c"), link("/b.a", "/c")])

    first = [path for path, inode, is_link in iter_tree(root) if inode.content and not is_link]
    assert first == [b"/b/z/x"]


def test_a_hard_link_keeps_what_its_target_was() -> None:
    root = merged([file("/a", b"old")], [link("/b", "/a")], [file("/a", b"new")])

    assert listing(root) == {"/a": b"new", "/b": b"old"}
    assert {inode.nlink for _, inode, _ in iter_tree(root) if inode.content} == {1}


@pytest.mark.parametrize("order", [1, -1])
def test_a_hard_link_may_lead_to_what_its_layer_hides(order: int) -> None:
    upper: list[Entry] = [link("/b", "/a"), hide("/a")]

    root = merged([file("/a")], upper[::order])

    assert listing(root) == {"/b": b"x"}


def test_a_hard_link_to_a_symlink_is_one() -> None:
    root = merged([symlink("/s")], [link("/t", "/s")])

    assert listing(root) == {"/s": b"t", "/t": b"t"}


@pytest.mark.parametrize(
    ("layers", "entry_name"),
    [
        ([[symlink("/s", "f"), file("/f")], [file("/s/x")]], "s/x"),
        ([[symlink("/s", "s")], [file("/s/x")]], "s/x"),
        ([[symlink("/s", "r"), symlink("/r", "/s")], [file("/s/a/b/x")]], "s/a/b/x"),
        ([[symlink("/s", "n" * 256)], [file("/s/x")]], "s/x"),
        ([[symlink("/s", "d/" * 600)], [file("/s/x")]], "s/x"),
        ([[symlink("/s", "f"), file("/f")], [link("/l", "/s/x")]], "l"),
        ([[file("/f")], [file("/f/x")]], "f/x"),
        ([[device("/f")], [directory("/f/x")]], "f/x"),
        ([[], [link("/l", "/missing")]], "l"),
        ([[directory("/d")], [link("/l", "/d")]], "l"),
        ([[device("/d")], [link("/l", "/d")]], "l"),
    ],
)
def test_what_does_not_fit_on_the_layers_below_is_refused(
    layers: list[list[Entry]], entry_name: str
) -> None:
    with pytest.raises(LayerUnsafe) as caught:
        merged(*layers)

    assert caught.value.metadata["entry"] == entry_name


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        # What debian, fedora and arch have, and what bazel, ko and nix put on top of it.
        (
            [[symlink("/lib", "usr/lib"), file("/usr/lib/a")], [file("/lib/x/b")]],
            {"/usr/lib/a": b"x", "/usr/lib/x/b": b"x"},
        ),
        (
            [
                [symlink("/lib", "usr/lib"), file("/usr/lib/a"), file("/usr/lib/b")],
                [hide("/lib/a")],
            ],
            {"/usr/lib/b": b"x"},
        ),
        (
            [
                [symlink("/lib", "usr/lib"), file("/usr/lib/d/a")],
                [opaque("/lib/d"), file("/lib/d/b")],
            ],
            {"/usr/lib/d/b": b"x"},
        ),
        (
            [[symlink("/lib", "/usr/lib"), file("/usr/lib/a", b"1")], [link("/l", "/lib/a")]],
            {"/l": b"1", "/usr/lib/a": b"1"},
        ),
        # A way out ends at the root, and one through what is not there is made.
        ([[symlink("/d/s", "../../../..")], [file("/d/s/etc/x")]], {"/etc/x": b"x"}),
        ([[symlink("/s", "t")], [file("/s/x")]], {"/t/x": b"x"}),
        ([[symlink("/s", "no/../t/./u")], [file("/s/x")]], {"/t/u/x": b"x"}),
        ([[symlink("/s", "r"), symlink("/r", "t")], [file("/s/x")]], {"/t/x": b"x"}),
        ([[symlink("/s", "t")], [hide("/s/x"), opaque("/s/y")]], {}),
    ],
)
def test_a_symbolic_link_of_a_lower_layer_is_followed_inside_the_tree(
    layers: list[list[Entry]], expected: dict[str, bytes]
) -> None:
    found = listing(merged(*layers))

    links = {one.path.decode() for one in layers[0] if isinstance(one, Put) and one.inode.payload}
    assert links <= found.keys()
    assert {p: c for p, c in found.items() if p not in links and c != b"/"} == expected


def test_layers_of_archives_merge(tmp_path: Path) -> None:
    lower = layer(
        ("etc", {"kind": tarfile.DIRTYPE}),
        ("etc/a", {"content": b"a" * 100}),
        ("etc/b", {"content": b"b" * 100}),
    )
    upper = archive(entry(b"etc/.wh.a"), entry(b"etc/c", kind=b"1", link=b"etc/b"))
    for name in ("lower", "upper"):
        (tmp_path / name).mkdir()

    root = merged(
        ingest(lower, tmp_path / "lower").entries, ingest(upper, tmp_path / "upper").entries
    )

    assert [path for path, _, _ in iter_tree(root)] == [b"/", b"/etc", b"/etc/b", b"/etc/c"]


paths = st.sampled_from(["/a", "/b", "/a/x", "/a/y", "/b/x", "/a/x/z"])
below = st.one_of(paths.map(file), paths.map(directory), paths.map(hide), paths.map(opaque))
entries = below | paths.map(symlink)


@given(st.lists(below, max_size=6), st.lists(entries, max_size=6))
@example([], [opaque("/a"), symlink("/a"), file("/a/x")])
@example([], [symlink("/a"), file("/a/x"), directory("/a"), file("/a/y")])
@example([directory("/t")], [symlink("/a"), file("/a/x"), symlink("/t", "u"), file("/a/y")])
def test_a_layer_hides_nothing_of_its_own(lower: list[Entry], upper: list[Entry]) -> None:
    """Wherever marks stand in a layer, the layer itself comes out whole.

    Below are no symbolic links, for through those its entries would go elsewhere.
    """
    try:
        expected = merged([one for one in upper if isinstance(one, Put)])
        found = merged(lower, upper)
    except LayerUnsafe:
        return  # it did not fit, which other tests are about

    assert listing(expected).items() <= listing(found).items()
