"""What a file that a user names as a kernel is: told by its bytes, since names lie."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from services.core.errors import RequestInvalid

_HEAD_BYTES: Final = 64 << 10
_VERSION_OFFSET: Final = 0x20E  # of the x86 boot protocol, relative to 0x200
_RELEASE = re.compile(r"[0-9][A-Za-z0-9.+~_-]{0,63}")


class KernelForm(StrEnum):
    """How a kernel is packed."""

    PACKAGE = "a Debian package"
    BZIMAGE = "a bzImage"
    ELF = "an ELF image"


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFile:
    """A file with a kernel: its form, and its release where the file says it."""

    form: KernelForm
    release: str


def examine_kernel(path: Path, *, name: str) -> KernelFile:
    """Returns what a file is.

    Args:
        path: the file.
        name: what the user called it, for a release that the file does not say.

    Raises:
        RequestInvalid: it is no kernel.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(b"!<arch>\ndebian-binary"):
        return KernelFile(form=KernelForm.PACKAGE, release="")
    if head.startswith(b"\x7fELF"):
        stated = _RELEASE.search(name.rpartition("/")[2])
        return KernelFile(form=KernelForm.ELF, release=stated[0] if stated else "0")
    if head[0x202:0x206] == b"HdrS":
        at = int.from_bytes(head[_VERSION_OFFSET : _VERSION_OFFSET + 2], "little") + 0x200
        text = head[at : at + 256].partition(b"\0")[0].decode("ascii", "replace")
        stated = _RELEASE.match(text)
        return KernelFile(form=KernelForm.BZIMAGE, release=stated[0] if stated else "0")
    raise RequestInvalid(
        f"{name} is no kernel: neither a bzImage, nor an ELF image, nor a Debian package",
        hint="name a kernel's file, vmlinuz-6.12 for example, or a linux-image package",
    )
