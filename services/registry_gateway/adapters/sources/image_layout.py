"""OCI image layouts: directories (`oci:DIR[:TAG]`) or tar files (`oci-archive:FILE[:TAG]`).

What is read is checked by its user: manifests against their digests here, blobs by the registry
that takes them.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import (
    ContentCorrupt,
    ImageUnknown,
    RequestInvalid,
)
from services.core.manifest import (
    MAX_MANIFEST_BYTES,
    Index,
    Manifest,
    parse_manifest,
    platform_of_config,
)
from services.core.platforms import Platform
from services.registry_gateway.adapters.sources.archives import FilePart, opened_archive, read_small
from services.registry_gateway.adapters.sources.docker_archive import full_name
from services.registry_gateway.adapters.sources.spool import Spool
from services.registry_gateway.ports import BlobSource, OpenedSource
from services.registry_gateway.progress import Stop

_REF_NAME: Final = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME: Final = "io.containerd.image.name"
_INDEX: Final = "index.json"
_MAX_DEPTH: Final = 3
_UNLABELLED_MAX: Final = 16


@contextlib.contextmanager
def open_directory(path: Path, tag: str) -> Iterator[OpenedSource]:
    """Opens a layout directory; blocks.

    Raises:
        RequestInvalid: it is no layout, or cannot be read.
        ImageUnknown: it has no image of that tag.
    """
    if not path.is_dir():
        raise RequestInvalid(
            f"the directory {path} does not exist",
            hint="the path is read on the host of the registry gateway",
        )

    def find(name: str) -> BlobSource | None:
        target = path / name
        # Links are followed: bazel's layouts are made of them, and a digest decides in the end.
        return FilePart(path=target) if target.is_file() else None

    yield _open(str(path), tag, find)


@contextlib.contextmanager
def open_archive(path: Path, tag: str, *, spool: Spool, stop: Stop) -> Iterator[OpenedSource]:
    """Opens a layout in a tar file, compressed or not; blocks.

    Raises:
        CapacityExhausted: the disk has no room for it uncompressed.
        LnsError: as `opened_archive` and `open_directory` say.
    """
    with opened_archive(path, spool, stop) as members:
        yield _open(str(path), tag, members.get)


def _open(place: str, tag: str, find: Callable[[str], BlobSource | None]) -> OpenedSource:
    top = find(_INDEX)
    if top is None:
        raise RequestInvalid(
            f"{place} is no OCI image layout: it has no file {_INDEX}",
            hint="give a directory or archive that `skopeo copy` or `umoci` made",
        )
    parsed = parse_manifest(read_small(top, MAX_MANIFEST_BYTES, _INDEX))
    if not isinstance(parsed, Index):
        raise RequestInvalid(f"{place}: {_INDEX} is not an index")
    root = _choose(place, parsed, tag)
    layout = _Layout(place=place, blobs=_Blobs(find))
    layout.gather(root)
    return OpenedSource(
        root=root,
        manifests=layout.manifests,
        blobs=layout.blobs,
        platforms=layout.platforms,
    )


def _choose(place: str, index: Index, tag: str) -> Descriptor:
    entries = index.manifests
    if tag:
        entries = tuple(e for e in entries if _is_named(e, tag))
    if len(entries) == 1:
        return entries[0]
    names = sorted({e.annotations.get(_REF_NAME, "") for e in index.manifests} - {""})
    listed = ", ".join(names[:20]) or "none with a name"
    if not entries:
        raise ImageUnknown(
            f"{place} has no image {tag!r}; it has {listed}",
            hint="name one of those after the path; the name of an only image can be left out",
            metadata={"image": tag},
        )
    raise RequestInvalid(
        f"{place} has {len(entries)} images", hint=f"add :TAG to the source, one of {listed}"
    )


def _is_named(entry: Descriptor, wanted: str) -> bool:
    """Says whether an entry has a name: as the layout writes it, short or full, or its tag."""
    names = [entry.annotations.get(key, "") for key in (_REF_NAME, _CONTAINERD_NAME)]
    for name in filter(None, names):
        full = full_name(name)
        if wanted == name or full_name(wanted) == full:
            return True
        if ":" in name and wanted == full.rpartition(":")[2] and "@" not in full:
            return True
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """What of a layout is below one entry of its index.

    Attributes:
        place: its name in messages.
        blobs: what it has.
        manifests: manifests and indexes that it has; absent platforms stay absent.
        platforms: as `OpenedSource` has it.
    """

    place: str
    blobs: "_Blobs"
    manifests: dict[Digest, bytes] = field(default_factory=dict)
    platforms: dict[Digest, Platform] = field(default_factory=dict)

    def gather(self, descriptor: Descriptor, *, depth: int = 0) -> Manifest | Index | None:
        """Reads a manifest and those below it; returns it unless it is absent or known."""
        source = self.blobs.get(descriptor.digest)
        if source is None or descriptor.digest in self.manifests:
            return None
        if depth > _MAX_DEPTH:
            raise RequestInvalid(
                f"{self.place}: indexes are nested deeper than {_MAX_DEPTH} levels"
            )
        raw = read_small(source, MAX_MANIFEST_BYTES, f"manifest {descriptor.digest.short}")
        if not descriptor.digest.is_of(raw):
            raise ContentCorrupt(
                f"{self.place}: manifest {descriptor.digest} has other bytes",
                metadata={"digest": descriptor.digest},
            )
        self.manifests[descriptor.digest] = raw
        parsed = parse_manifest(raw, media_type=descriptor.media_type, digest=descriptor.digest)
        if isinstance(parsed, Index):
            unlabelled = {one.digest for one in parsed.unlabelled[:_UNLABELLED_MAX]}
            for entry in parsed.manifests:
                below = self.gather(entry, depth=depth + 1)
                if isinstance(below, Manifest) and below.is_image and entry.digest in unlabelled:
                    self._ask_config(entry.digest, below)
        return parsed

    def _ask_config(self, digest: Digest, manifest: Manifest) -> None:
        source = self.blobs.get(manifest.config.digest)
        if source is not None:
            raw = read_small(source, MAX_MANIFEST_BYTES, f"config {manifest.config.digest.short}")
            self.platforms[digest] = platform_of_config(raw)


class _Blobs(Mapping[Digest, BlobSource]):
    """The blobs of a layout by digest, looked up when asked for."""

    def __init__(self, find: Callable[[str], BlobSource | None]) -> None:
        self._find = find

    def __getitem__(self, digest: Digest) -> BlobSource:
        found = self._find(f"blobs/{digest.algorithm}/{digest.hex}")
        if found is None:
            raise KeyError(digest)
        return found

    def __iter__(self) -> Iterator[Digest]:
        raise TypeError("a layout is asked for blobs, not listed")

    def __len__(self) -> int:
        raise TypeError("a layout is asked for blobs, not listed")
