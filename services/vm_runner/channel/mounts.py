"""What the agent mounts for the workload: disks of the host, and folders that the host serves."""

from dataclasses import dataclass

from services.vm_runner.channel.wire import Tag


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestVolume:
    """A disk with an ext4 file system, mounted for the workload."""

    disk: str
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestBind:
    """A folder or file of the host, served at a port of its own.

    Attributes:
        port: name of the virtio port.
        target: absolute path of the mount.
        user: of the image, that the owner of the host's files appears as; empty is root.
    """

    port: str
    target: str
    read_only: bool
    is_file: bool
    user: str = ""


def mount_field(mount: GuestVolume | GuestBind) -> tuple[Tag, bytes]:
    """Returns the field of a configuration that describes a mount."""
    mode = b"ro" if mount.read_only else b"rw"
    target = mount.target.encode("utf-8", "surrogateescape")
    if isinstance(mount, GuestVolume):
        return Tag.VOLUME, b"\0".join((mode, mount.disk.encode(), target))
    kind = b"file" if mount.is_file else b"folder"
    parts = (mode, kind, mount.port.encode(), target, mount.user.encode("utf-8", "surrogateescape"))
    return Tag.BIND, b"\0".join(parts)
