"""OCI layouts to move about: of random bytes, and of files that are really on the machine."""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from isal import igzip

_KIND: Final = "application/vnd.oci.image"
_MIB: Final = 1 << 20
_EPOCH: Final = 1735689600


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A blob of a layout."""

    digest: str
    size: int
    media_type: str
    diff_id: str = ""
    """Digest of the content of a layer."""

    @property
    def descriptor(self) -> dict[str, object]:
        """As it stands in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """An OCI layout with one image, tagged `latest`."""

    folder: Path
    manifest: Blob
    config: Blob
    layers: Sequence[Blob]
    unpacked_bytes: int = 0

    @property
    def size(self) -> int:
        """Bytes of the layers as they are transferred."""
        return sum(layer.size for layer in self.layers)

    def path_of(self, blob: Blob) -> Path:
        """Returns the file of a blob."""
        return self.folder / "blobs" / blob.digest.replace(":", "/")


def write_random_layout(folder: Path, *, layers: int, layer_bytes: int) -> Layout:
    """Writes an image whose layers are random bytes, for transfers alone."""

    def write(file: BinaryIO) -> None:
        file.writelines(os.urandom(_MIB) for _ in range(layer_bytes // _MIB))

    blobs = [_write_blob(folder, f"{_KIND}.layer.v1.tar", write) for _ in range(layers)]
    return finish_layout(folder, blobs, unpacked_bytes=layers * layer_bytes)


def write_repeating_layout(folder: Path, *, layer_bytes: int) -> Layout:
    """Writes an image whose one layer is large and quickly made; it does not compress away."""
    pattern = os.urandom(16 * _MIB)

    def write(file: BinaryIO) -> None:
        numbers = range(layer_bytes // len(pattern))
        file.writelines(number.to_bytes(8, "big") + pattern[8:] for number in numbers)

    blob = _write_blob(folder, f"{_KIND}.layer.v1.tar", write)
    return finish_layout(folder, [blob], unpacked_bytes=layer_bytes)


def write_real_layout(folder: Path, *, compressed_bytes: int, layers: int = 3) -> Layout:
    """Writes an image of files of this machine, until it is about that large.

    The layers hold the Python that runs this, then programs and libraries of the system.

    Args:
        folder: where.
        compressed_bytes: what the layers take together, as they are transferred.
        layers: how many.
    """
    sources = {
        Path(sys.prefix): "opt/venv",
        Path(sys.base_prefix, "lib"): "opt/python/lib",
        Path("/usr/bin"): "usr/bin",
        Path("/usr/lib"): "usr/lib",
        Path("/usr/share"): "usr/share",
    }
    files = _iter_members(sources)
    blobs = []
    unpacked = 0
    for _ in range(layers):
        blob, taken = _write_real_layer(folder, files, compressed_bytes // layers)
        blobs.append(blob)
        unpacked += taken
    return finish_layout(folder, blobs, unpacked_bytes=unpacked)


def add_layer(base: Layout, folder: Path, *, size: int) -> Layout:
    """Writes another layout: the same image with one more layer of that many random bytes."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True)
    for layer in base.layers:
        (blobs / layer.digest.removeprefix("sha256:")).hardlink_to(base.path_of(layer))
    tree = io.BytesIO()
    with tarfile.open(fileobj=tree, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(10):
            member = tarfile.TarInfo(f"opt/more/{number}-{os.urandom(4).hex()}")
            member.size = size // 10
            archive.addfile(member, io.BytesIO(os.urandom(member.size)))
    data = tree.getvalue()
    blob = _write_blob(
        folder,
        f"{_KIND}.layer.v1.tar+gzip",
        lambda file: file.write(gzip.compress(data, compresslevel=1, mtime=0)),
        diff_id=f"sha256:{hashlib.sha256(data).hexdigest()}",
    )
    total = base.unpacked_bytes + len(data)
    return finish_layout(folder, [*base.layers, blob], unpacked_bytes=total)


def finish_layout(folder: Path, layers: Sequence[Blob], *, unpacked_bytes: int = 0) -> Layout:
    """Writes config, manifest, index and marker of a layout whose layers exist."""
    config = _write_json(
        folder,
        f"{_KIND}.config.v1+json",
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {
                "type": "layers",
                "diff_ids": [layer.diff_id or layer.digest for layer in layers],
            },
        },
    )
    manifest = _write_json(
        folder,
        f"{_KIND}.manifest.v1+json",
        {
            "schemaVersion": 2,
            "mediaType": f"{_KIND}.manifest.v1+json",
            "config": config.descriptor,
            "layers": [layer.descriptor for layer in layers],
        },
    )
    tag = {"org.opencontainers.image.ref.name": "latest"}
    index = {"schemaVersion": 2, "manifests": [{**manifest.descriptor, "annotations": tag}]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return Layout(
        folder=folder,
        manifest=manifest,
        config=config,
        layers=tuple(layers),
        unpacked_bytes=unpacked_bytes,
    )


def _iter_members(sources: Mapping[Path, str]) -> Iterator[tuple[Path, str]]:
    """Yields directories, files and links with the names they get, in a stable order."""
    for source, name in sources.items():
        for folder, directories, files in os.walk(source):
            directories.sort()
            inside = Path(name, os.path.relpath(folder, source))
            yield Path(folder), str(inside)
            for file in sorted(files):
                yield Path(folder, file), str(inside / file)


def _write_real_layer(
    folder: Path, members: Iterator[tuple[Path, str]], budget: int
) -> tuple[Blob, int]:
    """Packs members until the layer has about `budget` bytes; returns it and its unpacked size."""
    content = hashlib.sha256()
    unpacked = 0

    def write(file: BinaryIO) -> None:
        nonlocal unpacked
        with (
            igzip.open(file, "wb", compresslevel=3) as compressed,  # type: ignore[no-untyped-call]  # isal has no types
            tarfile.open(
                fileobj=_Tee(compressed, content), mode="w|", format=tarfile.PAX_FORMAT
            ) as archive,
        ):
            for path, name in members:
                unpacked += _add(archive, path, name)
                if file.tell() >= budget:
                    break

    blob = _write_blob(folder, f"{_KIND}.layer.v1.tar+gzip", write)
    return replace(blob, diff_id=f"sha256:{content.hexdigest()}"), unpacked


def _add(archive: tarfile.TarFile, path: Path, name: str) -> int:
    """Adds a member with owners and times that do not vary; returns the size of its content."""
    member: tarfile.TarInfo | None = archive.gettarinfo(path, name)
    if member is None or member.isdev():  # None for a socket
        return 0
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = _EPOCH
    if not member.isreg():
        archive.addfile(member)
        return 0
    with path.open("rb") as file:
        archive.addfile(member, file)
    return member.size


class _Tee(io.RawIOBase):
    """A file for tarfile that hashes what it passes on."""

    def __init__(self, target: io.BufferedIOBase, digest: "hashlib._Hash") -> None:
        self._target = target
        self._digest = digest

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._target.write(data)


def _write_json(folder: Path, media_type: str, document: object) -> Blob:
    return _write_blob(folder, media_type, lambda file: file.write(json.dumps(document).encode()))


def _write_blob(
    folder: Path, media_type: str, write: Callable[[BinaryIO], object], *, diff_id: str = ""
) -> Blob:
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)
    temporary = blobs / f"new-{os.urandom(4).hex()}"
    with temporary.open("wb") as file:
        write(file)
    with temporary.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    temporary.rename(blobs / digest)
    size = (blobs / digest).stat().st_size
    return Blob(digest=f"sha256:{digest}", size=size, media_type=media_type, diff_id=diff_id)
