"""Images as `docker save` writes them: `docker-archive:FILE[:NAME]`, a tar file.

Such an archive has no manifest as registries know it, and its layers are not compressed. So one
is made: the config as it is, each layer gzipped, every layer checked against the `diff_ids` of the
config. The same archive gives the same digest, compressed as a whole or not.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from isal import isal_zlib

from services.core.descriptor import OCI_IMAGE_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor
from services.core.digest import Digest
from services.core.errors import (
    ContentCorrupt,
    ImageUnknown,
    LnsError,
    RegistryProtocol,
    RequestInvalid,
)
from services.core.manifest import MAX_LAYERS, parse_json_object
from services.core.reference import Reference
from services.registry_gateway.adapters.sources.archives import FilePart, opened_archive, read_small
from services.registry_gateway.adapters.sources.members import Members
from services.registry_gateway.adapters.sources.spool import Spool
from services.registry_gateway.adapters.sources.uncompressed import (
    Compression,
    compression_of,
    pieces,
    uncompressed,
)
from services.registry_gateway.ports import BlobSource, OpenedSource
from services.registry_gateway.progress import Stop

_MANIFEST: Final = "manifest.json"
_MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
_LEVEL: Final = 1
_GZIP_WINDOW: Final = 31


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One image of an archive."""

    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...]


@contextlib.contextmanager
def open_docker_archive(
    path: Path, name: str, *, spool: Spool, stop: Stop
) -> Iterator[OpenedSource]:
    """Opens an image of an archive; blocks while its layers are compressed.

    Args:
        path: the tar file, compressed or not.
        name: `name:tag` of the image; empty where the archive has one only.
        spool: takes the compressed layers.
        stop: ends the work.

    Raises:
        RequestInvalid: it is no such archive, or cannot be read.
        ImageUnknown: it has no image of that name.
        ContentCorrupt: it is damaged, or a layer is not the one that the config names.
        CapacityExhausted: the disk has no room for what is unpacked.
    """
    with opened_archive(path, spool, stop) as members, spool.folder() as folder:
        entry = _choose(path, _entries(path, members), name)
        config = read_small(_member(path, members, entry.config), _MAX_DOCUMENT_BYTES, entry.config)
        diff_ids = _diff_ids(config, entry.config)
        if len(diff_ids) != len(entry.layers):
            raise RequestInvalid(
                f"{path}: the config names {len(diff_ids)} layers,"
                f" the archive has {len(entry.layers)}"
            )
        blobs: dict[Digest, BlobSource] = {}
        layers = []
        for number, (member, diff_id) in enumerate(zip(entry.layers, diff_ids, strict=True)):
            source = _member(path, members, member)
            target = folder / str(number)
            digest, size, made = _gzipped(source, target, diff_id, spool, stop)
            blobs[digest] = made
            layers.append({"mediaType": OCI_LAYER_GZIP, "digest": digest, "size": size})
        config_path = folder / "config"
        config_path.write_bytes(config)
        blobs[Digest.of(config)] = FilePart(path=config_path)
        raw = _manifest(config, layers)
        root = Descriptor(media_type=OCI_MANIFEST, digest=Digest.of(raw), size=len(raw))
        yield OpenedSource(root=root, manifests={root.digest: raw}, blobs=blobs)


def _manifest(config: bytes, layers: Sequence[Mapping[str, Any]]) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": OCI_IMAGE_CONFIG,
            "digest": Digest.of(config),
            "size": len(config),
        },
        "layers": layers,
    }
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def _member(path: Path, members: Members, name: str) -> BlobSource:
    source = members.get(name)
    if source is None:
        raise RequestInvalid(
            f"{path} is not complete: its {_MANIFEST} names {name[:200]!r}, which is not in it",
            hint="save the image again",
        )
    return source


def _entries(path: Path, members: Members) -> list[_Entry]:
    top = members.get(_MANIFEST)
    if top is None:
        raise RequestInvalid(
            f"{path} is no archive of docker save: it has no {_MANIFEST}",
            hint="an OCI layout in a tar file is pushed with oci-archive:",
        )
    raw = read_small(top, _MAX_DOCUMENT_BYTES, _MANIFEST)
    # The parser takes objects; the file is a list.
    wrapped = b'{"images":' + raw + b"}"
    try:
        images = parse_json_object(wrapped, what=_MANIFEST)["images"]
    except RegistryProtocol as error:
        raise RequestInvalid(f"{path}: {error.message}") from error
    if not isinstance(images, list):
        raise RequestInvalid(f"{path}: {_MANIFEST} is not a list of images")
    return [_entry(path, image) for image in images]


def _entry(path: Path, image: object) -> _Entry:
    if isinstance(image, dict):
        config, layers = image.get("Config"), image.get("Layers") or []
        names = image.get("RepoTags") or []
        if isinstance(config, str) and _are_texts(layers) and _are_texts(names):
            if len(layers) > MAX_LAYERS:
                raise RequestInvalid(f"{path}: an image has more than {MAX_LAYERS} layers")
            return _Entry(config=config, layers=tuple(layers), names=tuple(names))
    raise RequestInvalid(f"{path}: {_MANIFEST} does not describe an image")


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _choose(path: Path, entries: Sequence[_Entry], name: str) -> _Entry:
    known = sorted({one for entry in entries for one in entry.names})
    listed = ", ".join(known[:20]) or "none with a name"
    if not name:
        if len(entries) == 1:
            return entries[0]
        raise RequestInvalid(
            f"{path} has {len(entries)} images", hint=f"add :NAME to the source, one of {listed}"
        )
    wanted = full_name(name)
    for entry in entries:
        if wanted in map(full_name, entry.names):
            return entry
    raise ImageUnknown(
        f"{path} has no image {name!r}; it has {listed}",
        hint="name one of those after the path; the name of an only image can be left out",
        metadata={"image": name},
    )


def full_name(text: str) -> str:
    """Returns the name of an image as a reference with host and tag; other text unchanged."""
    try:
        return str(Reference.parse(text))
    except LnsError:
        return text


def _diff_ids(config: bytes, what: str) -> list[Digest]:
    try:
        rootfs = parse_json_object(config, what=what).get("rootfs")
    except RegistryProtocol as error:
        raise RequestInvalid(error.message) from error
    rootfs = {} if rootfs is None else rootfs
    ids = (rootfs.get("diff_ids") or []) if isinstance(rootfs, dict) else None
    if not isinstance(ids, list) or not _are_texts(ids):
        raise RequestInvalid(f"{what} has no diff_ids: it is not the config of an image")
    return [Digest(one) for one in ids]


def _gzipped(
    source: BlobSource, target: Path, diff_id: Digest, spool: Spool, stop: Stop
) -> tuple[Digest, int, BlobSource]:
    """Returns digest, size and source of a layer as gzip; checks its content on the way."""
    plain, packed = diff_id.hasher(), hashlib.sha256()
    with source.open() as file:
        kept = compression_of(file) is Compression.GZIP
        chunks = _through(plain, stop.watched(uncompressed(file, what=f"layer {diff_id.short}")))
        if kept:
            for _ in chunks:
                pass
        else:
            spool.write(target, _through(packed, _gzip(chunks)))
    if plain.hexdigest() != diff_id.hex:
        found = f"{diff_id.algorithm}:{plain.hexdigest()}"
        raise ContentCorrupt(
            f"a layer has the content {found}, the config says {diff_id}",
            metadata={"digest": diff_id},
        )
    if not kept:
        return Digest.from_hex(packed.hexdigest()), target.stat().st_size, FilePart(path=target)
    with source.open() as file:
        size = sum(map(len, _through(packed, stop.watched(pieces(file)))))
    return Digest.from_hex(packed.hexdigest()), size, source


def _through(digest: "hashlib._Hash", chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same chunks, each into a digest."""
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _gzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    packer = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, _GZIP_WINDOW)
    for chunk in chunks:
        yield packer.compress(chunk)
    yield packer.flush()
