"""The tree of an image, put together from what the store has of its layers."""

import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from services.core.errors import LayerUnsafe
from services.materializer.composefs.tree import Inode
from services.materializer.layers.entries import Entry, parse_entries
from services.materializer.layers.ingest import ENTRIES
from services.materializer.layers.limits import unsafe
from services.materializer.layers.names import Opaque
from services.materializer.merge import Merger
from services.materializer.mount_paths import moved, resolve_mounts

READ_ONLY_XATTR = b"trusted.lns.read_only"
"""Marks the root of a mount that the workload may not change; part of the tree and its digest."""


class StoredLayer(NamedTuple):
    """A layer of the store."""

    diff_id: str
    directory: Path


class MountPoint(NamedTuple):
    """Where an artifact is mounted: as it was asked for."""

    path: str
    read_only: bool


class Assembled(NamedTuple):
    """A merged tree.

    Attributes:
        read_only_paths: where the mounts that the workload may not change are, sorted.
    """

    root: Inode
    read_only_paths: list[str]


def assemble(layers: Sequence[StoredLayer], mounts: Sequence[MountPoint]) -> Assembled:
    """The tree of layers, lowest first; where there are mounts the last layer is theirs.

    Raises:
        LayerUnsafe: the layers do not fit together; metadata names the layer's `diff_id`.
        ContentCorrupt: an entry list is damaged.
        OSError: an entry list cannot be read.
    """
    merger = Merger()
    targets: dict[bytes, bytes] = {}
    for number, layer in enumerate(layers, 1):
        try:
            entries: Iterable[Entry] = parse_entries((layer.directory / ENTRIES).read_bytes())
            if mounts and number == len(layers):
                paths = [mount.path.encode() for mount in mounts]
                targets = resolve_mounts(merger.root, paths)
                listed = [*moved(entries, targets)]
                _check_replaced(merger, targets, listed)
                entries = listed
            merger.add_layer(entries)
        except LayerUnsafe as error:
            error.metadata.setdefault("diff_id", layer.diff_id)
            raise
    read_only = [targets[mount.path.encode()] for mount in mounts if mount.read_only]
    for path in read_only:
        inode = merger.find(path)
        if inode is not None:
            inode.xattrs = {**inode.xattrs, READ_ONLY_XATTR: b"y"}
    return Assembled(merger.finish(), sorted(path.decode() for path in read_only))


def _check_replaced(
    merger: Merger, targets: Mapping[bytes, bytes], entries: Sequence[Entry]
) -> None:
    """Refuses a directory of files where the image has a file: it would be lost unnoticed."""
    directories = {entry.path for entry in entries if isinstance(entry, Opaque)}
    for path, target in targets.items():
        inode = merger.find(target) if target in directories else None
        if inode is not None and stat.S_ISREG(inode.mode):
            raise unsafe(
                path[1:],
                "the image has a file there, which a mounted directory would replace; give the"
                " artifact another mount.path",
            )
