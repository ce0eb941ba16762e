"""Where the files of the image store are, and how they come to be whole.

layers/<hex of the diffID>/objects.erofs, entries     a layer; the directory appears whole
images/<hex of the composefs digest>.cfs              a metadata image
materializer/work/                                    what is being made; swept at the start
materializer/catalogue.sqlite                         records of images and leases
materializer/lock                                     one service at a time
"""

import contextlib
import errno
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from services.chassis import durable
from services.core.digest import Digest
from services.core.errors import CapacityExhausted, Internal

_MODE = 0o755
_NO_SPACE = frozenset((errno.ENOSPC, errno.EDQUOT))
_TAKEN = frozenset((errno.ENOTEMPTY, errno.EEXIST))


class StoreFiles:
    """The directories of one store, made where they are missing."""

    def __init__(self, home: Path) -> None:
        self.layers = home / "layers"
        self.images = home / "images"
        self.private = home / "materializer"
        self._work = self.private / "work"
        with translated():
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            for directory in (self.layers, self.images, self._work):
                directory.mkdir(mode=_MODE, parents=True, exist_ok=True)

    def sweep(self) -> None:
        """Removes what work that was interrupted left behind; nothing may be under way."""
        with translated():
            for leftover in self._work.iterdir():
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
            directory = Path(tempfile.mkdtemp(dir=self._work))
        try:
            yield directory
        finally:
            _remove(directory)

    def publish_layer(self, directory: Path, diff_id: Digest) -> None:
        """Makes a directory with synced files the layer, unless there is one."""
        directory.chmod(_MODE)
        target = self.layer(diff_id)
        with translated():
            try:
                durable.rename(directory, target)
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise

    def publish_image(self, file: Path, digest: Digest) -> None:
        """Makes a synced file the metadata image."""
        file.chmod(0o644)
        with translated():
            durable.rename(file, self.image(digest))

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
