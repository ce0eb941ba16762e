"""Where the files of the image store are, and how they come to be whole.

layers/<hex of the diffID>/objects.erofs, entries     a layer; the directory appears whole
images/<hex of the image digest>.cfs                  a metadata image
materializer/work/                                    what is being made; swept at the start
materializer/catalogue.sqlite                         records of images and leases
materializer/lock                                     one service at a time
"""

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from services.chassis import durable
from services.core.digest import Digest
from services.core.errors import CapacityExhausted, Internal
from services.materializer.layers.entries import END_BYTES_MAX, EntryListEnd, parse_end
from services.materializer.layers.ingest import ENTRIES, OBJECTS

_MODE = 0o755
_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))
_READ_ONLY = 0o444
_SEAL_EPOCH = 315_532_800  # 1980: long ago, and not the 0 that tools reset times to
_SEAL_SPAN = 315_360_000  # ten years, in seconds


class StoreFiles:
    """The directories of one store, made where they are missing."""

    def __init__(self, home: Path) -> None:
        self.layers = home / "layers"
        self.images = home / "images"
        self.private = home / "materializer"
        self.work = self.private / "work"
        with translated():
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            for directory in (self.layers, self.images, self.work):
                directory.mkdir(mode=_MODE, parents=True, exist_ok=True)

    def sweep(self) -> None:
        """Removes what work that was interrupted left behind; nothing may be under way."""
        with translated():
            for leftover in self.work.iterdir():
                _remove(leftover)
            for leftover in self.images.glob(durable.TEMPORARY_PREFIX + "*"):
                leftover.unlink(missing_ok=True)

    def layer(self, diff_id: Digest) -> Path:
        """The directory of a layer."""
        return self.layers / diff_id.hex

    def image(self, digest: Digest) -> Path:
        """The metadata image of an image."""
        return self.images / f"{digest.hex}.cfs"

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yields an empty directory that goes with the block, unless it was moved elsewhere."""
        with translated():
            directory = Path(tempfile.mkdtemp(dir=self.work))
        try:
            yield directory
        finally:
            _remove(directory)

    def publish_layer(self, directory: Path, diff_id: Digest) -> None:
        """Makes a directory with synced files the layer, unless there is a sealed one."""
        with translated():
            for path in directory.iterdir():
                _seal(path, diff_id)
            directory.chmod(_MODE)
            if self.sealed_layer(diff_id) is not None:
                return
            self.remove_layer(diff_id)
            durable.rename(directory, self.layer(diff_id))

    def publish_image(self, file: Path, digest: Digest) -> None:
        """Makes a synced file the metadata image."""
        with translated():
            _seal(file, digest)
            durable.rename(file, self.image(digest))

    def reseal(self, layers: Iterable[Digest], image: Digest) -> None:
        """Seals what was found to be sound."""
        with translated():
            for diff_id in layers:
                for path in self.layer(diff_id).iterdir():
                    _seal(path, diff_id)
            _seal(self.image(image), image)

    def sealed_layer(self, diff_id: Digest) -> EntryListEnd | None:
        """What a layer says of itself, if it is all there and was not written to since."""
        directory = self.layer(diff_id)
        with contextlib.suppress(FileNotFoundError), (directory / ENTRIES).open("rb") as entries:
            size = entries.seek(0, os.SEEK_END)
            entries.seek(max(0, size - END_BYTES_MAX))
            end = parse_end(entries.read())
            if end is None or not _is_sealed(directory / ENTRIES, diff_id):
                return None
            pack = directory / OBJECTS
            if not end.pack.size or (
                pack.stat().st_size == end.pack.size and _is_sealed(pack, diff_id)
            ):
                return end
        return None

    def is_image_sealed(self, digest: Digest) -> bool:
        """Whether a metadata image exists and was not written to since it was made."""
        try:
            return _is_sealed(self.image(digest), digest)
        except FileNotFoundError:
            return False

    def remove_layer(self, diff_id: Digest) -> int:
        """Removes a layer at once from sight, then from disk; returns the bytes it took."""
        with self.scratch() as scratch, translated():
            doomed = scratch / "layer"
            try:
                self.layer(diff_id).rename(doomed)
            except FileNotFoundError:
                return 0
            return size_on_disk(doomed)

    def remove_image(self, digest: Digest) -> int:
        """Removes a metadata image; returns the bytes it took."""
        path = self.image(digest)
        with translated():
            try:
                size = path.stat().st_blocks * 512
                path.unlink()
            except FileNotFoundError:
                return 0
        durable.sync_directory(self.images)
        return size


def _seal_time(digest: Digest) -> int:
    """The time of modification, in nanoseconds, of a file that belongs to a digest."""
    return (_SEAL_EPOCH + int(digest.hex[:8], 16) % _SEAL_SPAN) * 1_000_000_000


def _seal(path: Path, digest: Digest) -> None:
    path.chmod(_READ_ONLY)
    os.utime(path, ns=(_seal_time(digest), _seal_time(digest)))


def _is_sealed(path: Path, digest: Digest) -> bool:
    return path.stat().st_mtime_ns == _seal_time(digest)


def size_on_disk(directory: Path) -> int:
    """Bytes that the files of a directory take."""
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns errors of the operating system into those of lns."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise CapacityExhausted(
                "the disk of the image store is full",
                hint="free space, or run `lns image prune`",
            ) from error
        raise Internal(
            f"the image store cannot be used: {error.strerror} ({error.filename})"
        ) from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
