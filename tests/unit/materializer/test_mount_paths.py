"""Where mounts end up in trees with symbolic links."""

import stat

import pytest

from services.core.errors import LayerUnsafe
from services.materializer.composefs.tree import Inode
from services.materializer.layers.entries import Entry, Link, Put
from services.materializer.layers.names import Opaque
from services.materializer.merge import Merger
from services.materializer.mount_paths import moved, resolve_mounts

LINKS = {
    "/lib": "usr/lib",
    "/var/run": "/run",
    "/up": "../../..",
    "/a/b/c": "../x",
    "/chain1": "chain2",
    "/chain2": "/a/b/c",
    "/loop1": "loop2",
    "/loop2": "loop1",
    "/dangling": "nowhere/at/all",
    "/srv/files": "/data",
}


def tree() -> Inode:
    merger = Merger()
    merger.add_layer(
        [
            *(Put(path.encode(), Inode(stat.S_IFDIR)) for path in ("/usr/lib", "/run", "/data")),
            *(
                Put(path.encode(), Inode(stat.S_IFLNK, payload=target.encode()))
                for path, target in LINKS.items()
            ),
            Put(b"/file", Inode(stat.S_IFREG)),
        ]
    )
    return merger.root


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/plain", "/plain"),
        ("/no/such/place", "/no/such/place"),
        ("/usr/lib/x", "/usr/lib/x"),
        ("/lib/x", "/usr/lib/x"),
        ("/lib/new/x", "/usr/lib/new/x"),
        ("/lib", "/lib"),
        ("/var/run/x", "/run/x"),
        ("/up/x", "/x"),
        ("/a/b/c/y", "/a/x/y"),
        ("/chain1/y", "/a/x/y"),
        ("/dangling/y", "/nowhere/at/all/y"),
    ],
)
def test_links_are_followed_inside_the_tree(path: str, expected: str) -> None:
    assert resolve_mounts(tree(), [path.encode()]) == {path.encode(): expected.encode()}


@pytest.mark.parametrize("path", ["/file/x", "/loop1/x"])
def test_a_mount_below_what_is_no_directory_is_refused(path: str) -> None:
    with pytest.raises(LayerUnsafe) as caught:
        resolve_mounts(tree(), [path.encode()])

    assert caught.value.metadata["entry"] == path[1:]


def test_a_mount_inside_another_stays_there() -> None:
    paths = [b"/srv/files/deep/inner", b"/srv/files", b"/lib/m", b"/lib/m/n"]

    assert resolve_mounts(tree(), paths) == {
        b"/srv/files": b"/srv/files",
        b"/srv/files/deep/inner": b"/srv/files/deep/inner",
        b"/lib/m": b"/usr/lib/m",
        b"/lib/m/n": b"/usr/lib/m/n",
    }


def test_entries_move_with_their_mount() -> None:
    inode = Inode(stat.S_IFREG)
    entries: list[Entry] = [
        Opaque(b"/lib/m"),
        Put(b"/lib/m/f", inode),
        Link(b"/lib/m/l", b"/lib/m/f"),
        Put(b"/other", inode),
    ]
    targets = {b"/lib/m": b"/usr/lib/m", b"/other": b"/other"}

    assert list(moved(entries, targets)) == [
        Opaque(b"/usr/lib/m"),
        Put(b"/usr/lib/m/f", inode),
        Link(b"/usr/lib/m/l", b"/usr/lib/m/f"),
        Put(b"/other", inode),
    ]
