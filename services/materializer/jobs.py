"""The jobs of a worker process: pure work on files that the service has named.

Paths in requests are the service's own; everything inside the files may be hostile.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, cast

from services.core.digest import Digest
from services.core.errors import ContentCorrupt, LayerUnsafe, LayerUnsupported
from services.materializer.assembly import Assembled, MountPoint, StoredLayer, assemble
from services.materializer.blob_errors import damaged
from services.materializer.checks import check_image, check_layer
from services.materializer.composefs.dump_text import iter_dump
from services.materializer.composefs.image import has_acl, inode_count, write_image
from services.materializer.composefs.tree import iter_tree
from services.materializer.composefs.verity import verity_digest
from services.materializer.layers.ingest import ENTRIES, OBJECTS, ingest_layer, open_layer
from services.materializer.layers.limits import LayerLimits
from services.materializer.layers.names import Opaque

_PROGRESS_BYTES = 4 << 20

Progress = Callable[[int], None]
Request = dict[str, Any]


def build_layer(request: Request, progress: Progress) -> dict[str, Any]:
    """Takes the layer in `blob` apart into `directory`; it must have `diff_id`."""
    directory = Path(request["directory"])
    with _blob(request["blob"], progress) as blob:
        facts = ingest_layer(
            blob,
            directory,
            diff_id=request["diff_id"],
            limits=LayerLimits(**request["limits"]),
        )
    _sync(directory)
    return asdict(facts)


def build_mounts(request: Request, progress: Progress) -> dict[str, Any]:
    """Makes one layer in `directory` of `mounts`: files with `content`, or archives in `blobs`."""
    directory = Path(request["directory"])
    limits = LayerLimits(**request["limits"])
    with open_layer(directory, limits) as layer:
        for mount in request["mounts"]:
            path = mount["path"].encode()
            if mount["content"] is not None:
                layer.add_file(path, mount["content"].encode("utf-8", "backslashreplace"))
                continue
            layer.add_entry(Opaque(path))
            with _named(mount["label"]):
                for one in mount["blobs"]:
                    with _blob(one, progress) as blob:
                        if one["title"]:
                            layer.add_whole_file(path + b"/" + one["title"].encode(), blob)
                        else:
                            layer.add_archive(blob, prefix=path, mounted=True)
        facts = layer.finish()
    _sync(directory)
    return asdict(facts)


def compose_image(request: Request, _: Progress) -> dict[str, Any]:
    """Merges `layers` into the metadata image `image`."""
    root, read_only_paths = _assembled(request)
    image = write_image(root)
    path = Path(request["image"])
    with path.open("wb") as file:
        file.write(image)
        file.flush()
        os.fsync(file.fileno())
    return {
        "digest": verity_digest(image).hex(),
        "metadata_bytes": len(image),
        "inode_count": inode_count(image),
        "has_acl": has_acl(image),
        "read_only_paths": read_only_paths,
    }


def write_dump(request: Request, _: Progress) -> dict[str, Any]:
    """Writes the dump of the merged `layers` to `output`."""
    with Path(request["output"]).open("wb") as file:
        file.writelines(iter_dump(_assembled(request).root))
    return {}


def verify_layers(request: Request, progress: Progress) -> dict[str, Any]:
    """Hashes every object of `layers` and `image` again; damages are named by path."""
    paths = _object_paths(request)
    image = check_image(Path(request["image"]), request["digest"])
    checks = [{"diff_id": "", **asdict(image)}]
    done = 0
    for layer in request["layers"]:
        check = check_layer(Path(layer["directory"]), paths)
        done += check.checked_bytes
        progress(done)
        checks.append({"diff_id": layer["diff_id"], **asdict(check)})
    return {"checks": checks}


def _object_paths(request: Request) -> dict[str, str]:
    """A path in the image for every object; nothing where an entry list is damaged itself."""
    try:
        tree = iter_tree(_assembled(request).root)
    except (ContentCorrupt, OSError):
        return {}
    return {
        inode.digest.hex(): path.decode("utf-8", "backslashreplace")
        for path, inode, _ in tree
        if inode.digest is not None
    }


def _assembled(request: Request) -> Assembled:
    return assemble(
        [StoredLayer(one["diff_id"], Path(one["directory"])) for one in request["layers"]],
        [MountPoint(one["path"], one["read_only"]) for one in request["mounts"]],
    )


@contextlib.contextmanager
def _named(label: str) -> Iterator[None]:
    """Says in the error of a layer that it is one of a mounted artifact, not of the image."""
    try:
        yield
    except (LayerUnsafe, LayerUnsupported) as error:
        error.message = f"the mounted {label}: {error.message}"
        error.metadata["mount"] = label
        error.hint = error.hint or "mend the artifact and push it again, or leave it out"
        raise


@contextlib.contextmanager
def _blob(blob: dict[str, str], progress: Progress) -> Iterator[BinaryIO]:
    """Yields a blob to be read; where that fails because it is damaged, raises that instead."""
    try:
        with _Watched(blob["path"], progress) as file:
            yield cast("BinaryIO", file)
    except (LayerUnsafe, ContentCorrupt):
        digest = Digest.from_hex(blob["digest"])
        with Path(blob["path"]).open("rb") as bytes_of_it:
            if hashlib.file_digest(bytes_of_it, digest.algorithm).hexdigest() == digest.hex:
                raise
        raise damaged(digest) from None


class _Watched:
    """A file that says how much of it has been read."""

    def __init__(self, path: str, progress: Progress) -> None:
        self._file = Path(path).open("rb")  # noqa: SIM115 - closed by __exit__
        self._progress = progress
        self._told = 0

    def __enter__(self) -> "_Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        done = self._file.tell()
        if done - self._told >= _PROGRESS_BYTES:
            self._told = done
            self._progress(done)
        return data

    def tell(self) -> int:
        return self._file.tell()


def _sync(directory: Path) -> None:
    """Makes the files of a layer survive a power failure."""
    for name in (OBJECTS, ENTRIES, "."):
        path = directory / name
        if path.exists():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
