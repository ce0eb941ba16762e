"""Writes the guest's initial file system: a cpio archive of the `newc` format. Pure.

Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from collections.abc import Iterable
from dataclasses import dataclass

_DIRECTORY = 0o040755
_EXECUTABLE = 0o100755
_FILE = 0o100644
_CHARACTER_DEVICE = 0o020600


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def build_initramfs(
    *, agent: bytes, modules: Iterable[tuple[str, bytes]], roots: bytes = b""
) -> bytes:
    """Returns an initramfs with the agent as `/init` and modules in the order of their loading.

    Args:
        agent: the guest agent.
        modules: names and contents of kernel modules.
        roots: PEM of the certificates that programs of an image without a bundle are to trust.
    """
    entries = [
        _Entry(name=name, mode=_DIRECTORY) for name in ("dev", "modules", "new", "proc", "sys")
    ]
    entries.append(_Entry(name="dev/console", mode=_CHARACTER_DEVICE, device=(5, 1)))
    entries.append(_Entry(name="init", mode=_EXECUTABLE, data=agent))
    if roots:
        entries.append(_Entry(name="roots.pem", mode=_FILE, data=roots))
    entries += [
        _Entry(name=f"modules/{number:03}-{name}.ko", mode=_FILE, data=module)
        for number, (name, module) in enumerate(modules)
    ]
    entries.append(_Entry(name="TRAILER!!!", mode=0))
    return b"".join(_encode(entry, inode) for inode, entry in enumerate(entries, start=1))


def _encode(entry: _Entry, inode: int) -> bytes:
    name = entry.name.encode() + b"\0"
    major, minor = entry.device
    numbers = (
        inode, entry.mode, 0, 0, 1, 0, len(entry.data), 0, 0, major, minor, len(name), 0,
    )  # fmt: skip
    header = b"070701" + b"".join(b"%08X" % number for number in numbers)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
