"""What a snapshot is of, and what is known of one."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from services.vm_runner.channel.requests import GuestConfig
from services.vm_runner.machines import MachineSpec, SavedMachine

_KEY_FORMAT = "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """The root of a guest: an image, as its disks and as what the agent is sent about it.

    Attributes:
        image_digest: digest of the image.
        config: the disks of the image and its read-only paths, and nothing of a run.
        writable_disk: serial of the disk of the writable layer.
        disks: the image's files. A snapshot has read from them: it is of these very files.
    """

    image_digest: str
    config: GuestConfig
    writable_disk: str
    disks: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A saved machine that has an image mounted.

    Attributes:
        key: digest over everything that it depends on.
        image_digest: of its image.
        sources: the image's files as they were, see `file_identity`.
        size_bytes: what it takes on the disk.
        use_time: when a machine was last resumed from it, else when it was made.
    """

    key: str
    image_digest: str
    sources: tuple[str, ...]
    vcpus: int
    memory_mib: int
    size_bytes: int
    create_time: datetime
    use_time: datetime
    saved: SavedMachine


def file_identity(path: Path) -> str:
    """Returns a text that changes when the file is replaced or written to.

    Raises:
        OSError: the file does not exist.
    """
    status = path.stat()
    return f"{path}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"


def snapshot_key(fingerprint: str, root: Root, sources: tuple[str, ...]) -> str:
    """Returns the key of the snapshot from which a machine may be resumed. Pure.

    Args:
        fingerprint: of the machine: everything but the content of its disks.
        root: what is mounted.
        sources: identities of the image's files.
    """
    digest = hashlib.sha256()
    for part in (_KEY_FORMAT, fingerprint, root.image_digest, root.writable_disk, *sources):
        digest.update(part.encode() + b"\0")
    digest.update(root.config.encode())
    return digest.hexdigest()


def placed(spec: MachineSpec, disk: str) -> Path:
    """Returns where a machine's disk of that serial is."""
    return next(one.path for one in spec.disks if one.serial == disk)
