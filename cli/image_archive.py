"""Images of the store as archives, and archives as images of the store.

What is saved is an OCI layout that has docker's `manifest.json` as well, as docker itself writes it
since version 25: `docker load`, skopeo, podman and `lns image load` all read it.
"""

import asyncio
import bz2
import gzip
import io
import json
import lzma
import shutil
import tarfile
import tempfile
import uuid
import zlib
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import zstandard
from lns.registry.v1 import registry_service_pb2 as pb

from cli.image_history import own_platform
from cli.render.progress import Reporter
from cli.run.console import STDOUT
from lns.client.connection.session import Session
from lns.client.running.launch import last_result
from services.archives.limits import ArchiveUnsafe, TarLimits
from services.archives.stream import ByteStream
from services.archives.tar import Hole, Kind, Member, TarReader
from services.archives.tar_header import BLOCK_BYTES
from services.core.errors import RequestInvalid
from services.core.reference import STORE_HOST

_LAYOUT: Final = b'{"imageLayoutVersion": "1.0.0"}'
_OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_MANIFEST: Final = "manifest.json"
_DOCUMENT_BYTES_MAX: Final = 4 << 20
_NAME: Final = "io.containerd.image.name"
_TAG: Final = "org.opencontainers.image.ref.name"
_WANTED: Final = {_MANIFEST, "index.json"}
_READ_BYTES: Final = 1 << 20
_DAMAGED: Final = (ArchiveUnsafe, lzma.LZMAError, zlib.error, zstandard.ZstdError)
_MEMBERS_MAX: Final = 100_000


@dataclass(slots=True)
class _Archive:
    """What is written into one archive so far."""

    file: BinaryIO
    written: set[str] = field(default_factory=set)
    index: list[dict[str, Any]] = field(default_factory=list)
    docker: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, data: BinaryIO, size: int) -> None:
        """Writes one member; whose it is and when, says nothing, so that equal is equal."""
        info = tarfile.TarInfo(name)
        info.size = size
        info.mode = 0o644
        self.file.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict"))
        shutil.copyfileobj(data, self.file, _READ_BYTES)
        self.file.write(bytes(-size % BLOCK_BYTES))

    def finish(self) -> None:
        """Writes the end-of-archive mark."""
        self.file.write(bytes(2 * BLOCK_BYTES))


def open_stdout() -> BinaryIO:
    """Opens standard output for the bytes of an archive."""
    return open(STDOUT, "wb", closefd=False)


async def save(session: Session, references: Sequence[str], file: BinaryIO) -> None:
    """Writes images of the store into one archive.

    Raises:
        RequestInvalid: a reference names no image.
        LnsError: as the gateway gave it; no registry is asked.
    """
    archive = _Archive(file)
    for reference in references:
        await _save_one(session, reference, archive)
    index = {"schemaVersion": 2, "mediaType": _OCI_INDEX, "manifests": archive.index}
    for name, data in (
        ("oci-layout", _LAYOUT),
        ("index.json", json.dumps(index).encode()),
        (_MANIFEST, json.dumps(archive.docker).encode()),
    ):
        await asyncio.to_thread(archive.add, name, io.BytesIO(data), len(data))
    await asyncio.to_thread(archive.finish)


async def _save_one(session: Session, reference: str, archive: _Archive) -> None:
    answer = await session.registry.GetManifest(
        pb.GetManifestRequest(reference=reference, platform=own_platform(), offline=True)
    )
    manifest = json.loads(answer.manifest)
    blobs = [manifest.get("config") or {}, *(manifest.get("layers") or [])]
    if not all(isinstance(blob, dict) and blob.get("digest") for blob in blobs):
        raise RequestInvalid(f"{reference} is no image", hint="`lns inspect` describes artifacts")
    for blob in blobs:
        await _save_blob(session, str(blob["digest"]), archive)
    await asyncio.to_thread(
        _add_new,
        archive,
        answer.descriptor.digest,
        io.BytesIO(answer.manifest),
        len(answer.manifest),
    )
    name = answer.reference if "@" not in answer.reference else ""
    archive.index.append(
        {
            "mediaType": answer.descriptor.media_type,
            "digest": answer.descriptor.digest,
            "size": len(answer.manifest),
            "annotations": {
                _NAME: answer.reference,
                **({_TAG: name.rpartition(":")[2]} if name else {}),
            },
        }
    )
    archive.docker.append(
        {
            "Config": _path(str(blobs[0]["digest"])),
            "RepoTags": [name.removeprefix("docker.io/library/").removeprefix("docker.io/")]
            if name
            else [],
            "Layers": [_path(str(blob["digest"])) for blob in blobs[1:]],
        }
    )


async def _save_blob(session: Session, digest: str, archive: _Archive) -> None:
    if _path(digest) in archive.written:
        return
    with tempfile.TemporaryFile() as file:
        chunks: AsyncIterable[pb.ReadBlobResponse] = session.registry.ReadBlob(
            pb.ReadBlobRequest(digest=digest)
        )
        async for chunk in chunks:
            await asyncio.to_thread(file.write, chunk.data)
        size = file.tell()
        file.seek(0)
        await asyncio.to_thread(_add_new, archive, digest, file, size)


def _add_new(archive: _Archive, digest: str, data: BinaryIO, size: int) -> None:
    path = _path(digest)
    if path not in archive.written:
        archive.written.add(path)
        archive.add(path, data, size)


def _path(digest: str) -> str:
    algorithm, _, digits = digest.partition(":")
    return f"blobs/{algorithm}/{digits}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loadable:
    """One image of an archive.

    Attributes:
        source: how the gateway calls it: `docker-archive:/a.tar:name:tag`.
        names: the names that it gets in the store.
    """

    source: str
    names: tuple[str, ...]


def images_of(path: Path) -> list[Loadable]:
    """Returns the images of an archive, docker's or an OCI layout, compressed or not.

    Raises:
        RequestInvalid: it is neither.
    """
    documents = _documents(path)
    absolute = path.absolute()
    tagged = _docker_names(documents.get(_MANIFEST))
    index = documents.get("index.json")
    entries = index.get("manifests") if isinstance(index, dict) else None
    if isinstance(entries, list) and len(entries) == 1:
        # The same bytes that were pulled; docker's list gives layers alone.
        names = _layout_names(entries[0]) or (tagged[0] if len(tagged) == 1 else ())
        return [Loadable(source=f"oci-archive:{absolute}", names=names)]
    if tagged:
        return [
            Loadable(
                source=f"docker-archive:{absolute}" + (f":{names[0]}" if names else ""), names=names
            )
            for names in tagged
        ]
    raise RequestInvalid(
        f"{path} is no archive of images" + (", or one of several" if entries else ""),
        hint="`lns image save`, `docker save` and `skopeo copy … oci-archive:` write such archives;"
        " `lns push oci-archive:FILE:TAG REF` takes one of several",
    )


def _docker_names(document: Any) -> list[tuple[str, ...]]:
    """The names of each image in docker's list."""
    entries = document if isinstance(document, list) else []
    tags = [entry.get("RepoTags") if isinstance(entry, dict) else None for entry in entries]
    return [tuple(tag for tag in one or [] if isinstance(tag, str)) for one in tags]


def _layout_names(entry: Any) -> tuple[str, ...]:
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    if not isinstance(annotations, dict):
        return ()
    name, tag = annotations.get(_NAME), annotations.get(_TAG)
    if not isinstance(name, str) and isinstance(tag, str) and ":" in tag:
        name = tag  # podman and skopeo write the whole name where docker has the tag
    return (name,) if isinstance(name, str) and "@" not in name else ()


async def load(session: Session, image: Loadable, reporter: Reporter) -> list[str]:
    """Puts one image into the store; returns the names that it has there.

    Raises:
        LnsError: as the gateway gave it.
    """
    own = f"{STORE_HOST}/loaded/{uuid.uuid4().hex}:latest"
    answers = session.registry.PushImage(pb.PushImageRequest(source=image.source, reference=own))
    result = await last_result(answers, reporter, "the gateway")
    targets = image.names or (f"{STORE_HOST}/loaded/{result.descriptor.digest[7:19]}:latest",)
    names = []
    for target in targets:
        request = pb.TagStoredImageRequest(source=own, target=target)
        names.append((await session.registry.TagStoredImage(request)).reference)
    await session.registry.RemoveStoredImage(pb.RemoveStoredImageRequest(reference=own))
    return names


def _documents(path: Path) -> dict[str, Any]:
    """The JSON documents at the top of an archive."""
    found: dict[str, Any] = {}
    try:
        with _opened(path) as file:
            reader = TarReader(ByteStream(iter(lambda: file.read(_READ_BYTES), b"")), TarLimits())
            for number, member in enumerate(reader):
                name = member.name.removeprefix(b"./").lstrip(b"/").decode("utf-8", "replace")
                if name in _WANTED and member.kind is Kind.FILE:
                    found[name] = json.loads(_content(reader, member))
                if number > _MEMBERS_MAX or found.keys() == _WANTED:
                    break
    except (*_DAMAGED, ValueError, EOFError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error
    except OSError as error:  # what decompressors raise, beside what the system does
        if error.errno is not None:
            raise
        raise _unreadable(path, str(error)) from error
    return found


def _content(reader: TarReader, member: Member) -> bytes:
    if member.size > _DOCUMENT_BYTES_MAX:
        raise ArchiveUnsafe(member.name, "it is larger than such a document is")
    return b"".join(
        bytes(piece.size) if isinstance(piece, Hole) else piece for piece in reader.content()
    )


def _opened(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        head = file.read(6)
    if head.startswith(b"\x1f\x8b"):
        return cast("BinaryIO", gzip.open(path))
    if head.startswith(b"BZh"):
        return cast("BinaryIO", bz2.open(path))
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return cast("BinaryIO", zstandard.open(path, "rb"))
    if head.startswith(b"\xfd7zXZ"):
        return cast("BinaryIO", lzma.open(path))
    return path.open("rb")


def _unreadable(path: Path, why: str) -> RequestInvalid:
    return RequestInvalid(
        f"{path} cannot be read as an archive of images: {why[:200]}", hint="is it whole?"
    )
