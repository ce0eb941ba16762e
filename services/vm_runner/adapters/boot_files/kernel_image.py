"""What QEMU boots in a kernel's file, and for which architecture it is. Pure: bytes in, bytes out.

On x86, QEMU boots the uncompressed `vmlinux` in a bzImage through its PVH entry, which saves the
guest its own decompression (about a second under emulation). On arm64 it boots an `Image`, which
some distributions compress as a whole and others wrap into a program for UEFI.

Formats: the kernel's Documentation/arch/x86/boot.rst and Documentation/arch/arm64/booting.rst, and
drivers/firmware/efi/libstub/zboot-header.S.
"""

import struct
from typing import Final

from services.vm_runner.adapters.boot_files.kernel import (
    DECOMPRESSORS,
    ELF_MAGIC,
    decompressed,
    no_kernel,
)
from services.vm_runner.architectures import Architecture

HEAD_BYTES: Final = 0x250
"""What of a file tells its architecture, unless it is compressed as a whole."""

_BOOT_MAGIC: Final = b"HdrS"
_PAYLOAD_VERSION: Final = 0x0208
_ELF_MACHINES: Final = {62: Architecture.X86_64, 183: Architecture.AARCH64}  # elf(5), e_machine
_ARM_MAGIC: Final = b"ARMd"
_ARM_MAGIC_AT: Final = 0x38
_GZIP: Final = b"\x1f\x8b"
_ZBOOT_MAGIC: Final = b"zimg"


def extract_kernel(image: bytes, architecture: Architecture, *, name: str) -> bytes:
    """Returns what QEMU boots: the ELF file in a bzImage, or the arm64 `Image`.

    Raises:
        HostUnready: the file is no kernel, one of another architecture, or compressed in a way that
            is not known here.
    """
    found = kernel_architecture(image)
    if found is not None and found is not architecture:
        raise no_kernel(name, f"it is a kernel for {found}, and the guest is {architecture}")
    if image[:4] == ELF_MAGIC:
        if found is None:
            raise no_kernel(name, "it is an ELF file for another machine")
        return image
    if architecture is Architecture.X86_64:
        return _of_bzimage(image, name)
    return _of_arm_image(image, name)


def kernel_architecture(head: bytes) -> Architecture | None:
    """Returns for which architecture a kernel is, by its first bytes; None where they do not tell.

    A file that is compressed as a whole is taken for an arm64 kernel, which alone come like that.
    """
    if head[:4] == ELF_MAGIC and len(head) >= 20:  # noqa: PLR2004 - the end of e_machine
        return _ELF_MACHINES.get(struct.unpack_from("<H", head, 18)[0])
    if head[0x202:0x206] == _BOOT_MAGIC:
        return Architecture.X86_64
    is_image = head[_ARM_MAGIC_AT:][:4] == _ARM_MAGIC
    if is_image or head[:2] == _GZIP or (head[:2], head[4:8]) == (b"MZ", _ZBOOT_MAGIC):
        return Architecture.AARCH64
    return None


def _of_bzimage(image: bytes, name: str) -> bytes:
    """The places are those of the x86 boot protocol.

    They are the setup sectors at 0x1f1, the payload's offset and length at 0x248 from 2.08 on.
    """
    if len(image) < HEAD_BYTES or image[0x202:0x206] != _BOOT_MAGIC:
        raise no_kernel(name, "it is neither an ELF file nor a bzImage")
    (version,) = struct.unpack_from("<H", image, 0x206)
    if version < _PAYLOAD_VERSION:
        raise no_kernel(name, "its boot protocol is too old")
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = ((image[0x1F1] or 4) + 1) * 512 + offset
    kernel = _unpacked(image[start : start + length], name)
    if kernel[:4] != ELF_MAGIC:
        raise no_kernel(name, "what it holds is no ELF file")
    return kernel


def _of_arm_image(image: bytes, name: str) -> bytes:
    if (image[:2], image[4:8]) == (b"MZ", _ZBOOT_MAGIC) and len(image) >= HEAD_BYTES:
        offset, length = struct.unpack_from("<II", image, 8)
        image = _unpacked(image[offset : offset + length], name)
    elif image[:2] == _GZIP:
        image = _unpacked(image, name)
    if image[_ARM_MAGIC_AT:][:4] != _ARM_MAGIC:
        raise no_kernel(name, "it is neither an ELF file nor an arm64 Image")
    return image


def _unpacked(payload: bytes, name: str) -> bytes:
    for magic, decompress in DECOMPRESSORS.items():
        if payload.startswith(magic):
            return decompressed(decompress, payload, name)
    raise no_kernel(name, "its compression is not known")
