"""The folder of guest kernels: what is in it, how one gets there whole, which one is chosen."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from services.chassis import durable
from services.chassis.guest_kernels import CHOSEN, kernel_folders

_RECORD: Final = "lns-kernel.json"
_RECORD_MOST: Final = 16 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a kernel came from.

    Attributes:
        source: the package, file or address.
        digest: of the file it came in, `sha256:…`.
    """

    source: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A kernel that is there."""

    folder: Path
    release: str
    origin: Origin | None
    is_chosen: bool

    def describe(self) -> str:
        """Returns release, digest and place, for users."""
        digest = f", {self.origin.digest} of {self.origin.source}" if self.origin else ""
        return f"{self.release}{', chosen' if self.is_chosen else ''}{digest}, in {self.folder}"


class KernelFolder:
    """Kernels below one directory.

    Args:
        path: the directory; made when it is needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def current(self) -> Kernel | None:
        """Returns the kernel that runs get: the chosen one, else the newest."""
        images = [
            image for folder in kernel_folders(self.path) for image in folder.glob("boot/vmlinuz-*")
        ]
        if not images:
            return None
        newest = max(images, key=lambda image: [int(n) for n in re.findall(r"\d+", image.name)])
        folder = newest.parent.parent
        return Kernel(
            folder=folder.resolve(),
            release=newest.name.removeprefix("vmlinuz-"),
            origin=_read_origin(folder / _RECORD),
            is_chosen=folder.name == CHOSEN,
        )

    def find(self, name: str) -> Path | None:
        """Returns the folder of that name with a kernel in it, or None."""
        folder = self.path / name
        return folder if any(folder.glob("boot/vmlinuz-*")) else None

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Path]:
        """Yields a folder beside the kernels for what is not whole yet; removed afterwards.

        Raises:
            OSError: it cannot be made.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=durable.TEMPORARY_PREFIX, dir=self.path))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def put(self, root: Path, name: str, origin: Origin) -> Path:
        """Makes an unpacked kernel one of the folder's, whole, under a name.

        Raises:
            OSError: it cannot be written.
        """
        record = json.dumps(asdict(origin), indent=2) + "\n"
        durable.write_bytes(root / _RECORD, record.encode())
        root.chmod(0o755)
        os.sync()  # hundreds of small files, once
        target = self.path / name
        target.parent.mkdir(exist_ok=True)
        try:
            durable.rename(root, target)
        except OSError:
            if self.find(name) is None:  # else another set-up was first
                raise
        return target

    def choose(self, name: str) -> None:
        """Makes a kernel the one that runs get.

        Raises:
            OSError: the link cannot be written.
        """
        with self.incoming() as work:
            (work / CHOSEN).symlink_to(name)
            durable.rename(work / CHOSEN, self.path / CHOSEN)

    def choose_newest(self) -> None:
        """Has runs get the newest kernel again.

        Raises:
            OSError: the link cannot be removed.
        """
        (self.path / CHOSEN).unlink(missing_ok=True)


def _read_origin(path: Path) -> Origin | None:
    """Returns what was recorded; None where nothing was, or it cannot be read."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_RECORD_MOST))
        return Origin(source=str(document["source"]), digest=str(document["digest"]))
    except (OSError, ValueError, LookupError, TypeError):
        return None
