"""Checks what the store holds of a layer, object by object."""

import hashlib
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.core.errors import ContentCorrupt
from services.materializer.composefs.erofs import SUPERBLOCK, SUPERBLOCK_AT
from services.materializer.composefs.verity import digest_of_leaves, leaf_hashes, verity_digest
from services.materializer.layers.entries import END_BYTES_MAX, Put, parse_end, parse_entries
from services.materializer.layers.ingest import ENTRIES, OBJECTS
from services.materializer.layers.pack_metadata import PackEnd
from services.materializer.layers.pack_reader import PackDamaged, PackReader

_PIECE_BYTES = 4 << 20
_SHOWN_MAX = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """What is wrong with one file.

    Attributes:
        path: path in the image, or the store's file where no path is known.
        object_digest: fs-verity digest of the object, hexadecimal; empty where it is not about one.
        description: what is wrong, for a person.
    """

    path: str
    object_digest: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What checking one layer, or one metadata image, found."""

    object_count: int
    checked_bytes: int
    damages: tuple[Damage, ...]


def check_image(path: Path, digest: str) -> Check:
    """Hashes a metadata image again; it must have the digest (hexadecimal)."""
    try:
        actual = verity_digest(path.read_bytes()).hex()
    except OSError as error:
        actual = str(error.strerror)
    if actual == digest:
        return Check(object_count=0, checked_bytes=0, damages=())
    damage = Damage(
        path=f"images/{path.name}",
        object_digest=digest,
        description=f"the metadata image does not match its digest: {actual}",
    )
    return Check(object_count=0, checked_bytes=0, damages=(damage,))


def check_layer(directory: Path, paths: Mapping[str, str]) -> Check:
    """Hashes every object of a layer again, and the structure that holds them.

    Args:
        directory: the layer in the store.
        paths: path in the image by object digest (hexadecimal), where the image has the object.
    """
    try:
        data = (directory / ENTRIES).read_bytes()
        entries = list(parse_entries(data))
    except (ContentCorrupt, OSError) as error:
        reason = error.message if isinstance(error, ContentCorrupt) else str(error.strerror)
        damage = Damage(path=ENTRIES, object_digest="", description=reason)
        return Check(object_count=0, checked_bytes=0, damages=(damage,))
    own_paths = {
        entry.inode.digest.hex(): (entry.path.decode("utf-8", "backslashreplace"), entry.inode.size)
        for entry in entries
        if isinstance(entry, Put) and entry.inode.digest is not None
    }
    end = parse_end(data[-END_BYTES_MAX:])
    damages: list[Damage] = []
    checked = 0
    with _Mapped(directory / OBJECTS if own_paths else None) as mapped:
        pack = _Pack(mapped)
        for digest, (own_path, size) in own_paths.items():
            problem = pack.check(digest, size)
            checked += size
            if problem:
                path = paths.get(digest, own_path)
                damages.append(Damage(path=path, object_digest=digest, description=problem))
        if not damages and end is not None and not _is_structure_sound(mapped, end.pack):
            description = "the structure of the object pack is damaged"
            damages.append(Damage(path=OBJECTS, object_digest="", description=description))
    return Check(object_count=len(own_paths), checked_bytes=checked, damages=_shown(damages))


def _is_structure_sound(pack: memoryview, end: PackEnd) -> bool:
    if not end.size:
        return True
    digest = hashlib.sha256(pack[SUPERBLOCK_AT : SUPERBLOCK_AT + SUPERBLOCK.size])
    digest.update(pack[end.metadata_at :])
    return len(pack) == end.size and digest.hexdigest() == end.metadata_digest


def _shown(damages: list[Damage]) -> tuple[Damage, ...]:
    """The damages, or the first of very many with their number: an answer has an end."""
    if len(damages) <= _SHOWN_MAX:
        return tuple(damages)
    more = f"and {len(damages) - _SHOWN_MAX} more files"
    return (*damages[:_SHOWN_MAX], Damage(path=OBJECTS, object_digest="", description=more))


class _Pack:
    """An object pack that may be damaged anywhere."""

    def __init__(self, data: memoryview) -> None:
        self._reader: PackReader | None = None
        self._problem = ""
        try:
            self._reader = PackReader(data)
        except PackDamaged as damaged:
            self._problem = f"the object pack is damaged: {damaged}"

    def check(self, digest: str, size: int) -> str:
        """What is wrong with an object; empty if nothing is."""
        if self._reader is None:
            return self._problem
        leaves = bytearray()
        found = 0
        try:
            for piece in self._reader.content(digest):
                found += len(piece)
                for start in range(0, len(piece), _PIECE_BYTES):
                    leaves += leaf_hashes(piece[start : start + _PIECE_BYTES])
        except PackDamaged as damaged:
            return f"the object pack is damaged: {damaged}"
        if found != size:
            return f"the object has {found} bytes where {size} are expected"
        if digest_of_leaves(leaves, found).hex() != digest:
            return "the object's content does not match its digest"
        return ""


class _Mapped:
    """A file mapped into memory; an absent or empty one is no bytes."""

    def __init__(self, path: Path | None) -> None:
        self._map: mmap.mmap | None = None
        if path is not None and path.exists() and path.stat().st_size:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __enter__(self) -> memoryview:
        return memoryview(self._map) if self._map is not None else memoryview(b"")

    def __exit__(self, *_: object) -> None:
        """The mapping goes with its last view."""
