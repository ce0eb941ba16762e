import gzip
import lzma
import struct
from collections.abc import Callable

import pytest
import zstandard

from services.core.errors import HostUnready
from services.vm_runner.adapters.boot_files.kernel_image import (
    HEAD_BYTES,
    extract_kernel,
    kernel_architecture,
)
from services.vm_runner.architectures import Architecture

X86_64, AARCH64 = Architecture.X86_64, Architecture.AARCH64


def elf(machine: int) -> bytes:
    """An ELF file of a machine, as elf(5) numbers them."""
    return b"\x7fELF" + bytes(14) + struct.pack("<H", machine) + bytes(range(256)) * 64


def arm_image() -> bytes:
    """An arm64 kernel as arm64/booting.rst has it: a magic behind its first words."""
    return b"MZ" + bytes(0x36) + b"ARMd" + bytes(range(256)) * 64


def zboot(payload: bytes) -> bytes:
    """A kernel in a program for UEFI: where its payload is, and how long, stands at its start."""
    header = bytearray(1024)
    header[:2], header[4:8] = b"MZ", b"zimg"
    struct.pack_into("<II", header, 8, len(header), len(payload))
    return bytes(header) + payload + b"behind"


VMLINUX = elf(62)


def bzimage(payload: bytes, *, version: int = 0x020F, sectors: int = 4) -> bytes:
    """A kernel image with that payload behind its real-mode part."""
    setup = bytearray((sectors + 1) * 512)
    setup[0x1F1] = sectors
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, version)
    struct.pack_into("<II", setup, 0x248, 64, len(payload))
    return bytes(setup) + bytes(64) + payload + b"trailing"


def zstd_as_the_kernel_has_it(data: bytes) -> bytes:
    """Without a content size in the frame, with the size behind it."""
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    frame = compressor.compress(data) + compressor.flush()
    return frame + struct.pack("<I", len(data))


@pytest.mark.parametrize(
    "compress",
    [zstd_as_the_kernel_has_it, gzip.compress, lzma.compress],
    ids=["zstd", "gzip", "xz"],
)
def test_the_kernel_in_an_image_is_found(compress: Callable[[bytes], bytes]) -> None:
    assert extract_kernel(bzimage(compress(VMLINUX)), X86_64, name="k") == VMLINUX


@pytest.mark.parametrize(
    ("kernel", "architecture"),
    [(VMLINUX, X86_64), (elf(183), AARCH64), (arm_image(), AARCH64)],
    ids=["vmlinux", "arm vmlinux", "Image"],
)
def test_a_kernel_that_is_not_compressed_stays_as_it_is(
    kernel: bytes, architecture: Architecture
) -> None:
    assert extract_kernel(kernel, architecture, name="k") == kernel


@pytest.mark.parametrize(
    "wrap",
    [
        gzip.compress,
        lambda kernel: zboot(gzip.compress(kernel)),
        lambda kernel: zboot(zstd_as_the_kernel_has_it(kernel)),
    ],
    ids=["gzip", "zboot of gzip", "zboot of zstd"],
)
def test_the_arm_kernel_in_a_file_is_found(wrap: Callable[[bytes], bytes]) -> None:
    assert extract_kernel(wrap(arm_image()), AARCH64, name="k") == arm_image()


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "neither"),
        (b"#!/bin/sh\n" * 100, "neither"),
        (bzimage(gzip.compress(VMLINUX), version=0x0200), "too old"),
        (elf(40), "another machine"),
        (bzimage(b"unknown"), "compression is not known"),
        (bzimage(gzip.compress(b"no kernel")), "no ELF"),
        (bzimage(gzip.compress(VMLINUX)[:-20]), "cut off"),
        (bzimage(b"\x28\xb5\x2f\xfd" + bytes(30)), "decompress"),
        (bzimage(lzma.compress(VMLINUX)[:40]), "cut off"),
    ],
    ids=[
        "empty",
        "script",
        "old",
        "other elf",
        "unknown",
        "no elf",
        "cut gzip",
        "bad zstd",
        "cut xz",
    ],
)
def test_what_cannot_be_booted_is_reported_with_the_reason_and_the_way_out(
    image: bytes, reason: str
) -> None:
    with pytest.raises(HostUnready, match=reason) as caught:
        extract_kernel(image, X86_64, name="/boot/vmlinuz")

    assert "/boot/vmlinuz" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "neither"),
        (gzip.compress(b"no kernel"), "neither"),
        (gzip.compress(arm_image())[:-20], "cut off"),
        (zboot(b"unknown" * 200), "compression is not known"),
        (zboot(gzip.compress(b"no kernel")) + bytes(1024), "neither"),
        (zboot(b"")[:600], "not known"),
    ],
    ids=["empty", "no kernel", "cut gzip", "unknown", "no kernel in zboot", "cut zboot"],
)
def test_what_is_no_arm_kernel_is_refused(image: bytes, reason: str) -> None:
    with pytest.raises(HostUnready, match=reason) as caught:
        extract_kernel(image, AARCH64, name="/boot/vmlinuz")

    assert "/boot/vmlinuz" in caught.value.message


@pytest.mark.parametrize(
    ("image", "wanted", "said"),
    [
        (bzimage(gzip.compress(VMLINUX)), AARCH64, "a kernel for x86_64, and the guest is aarch64"),
        (VMLINUX, AARCH64, "a kernel for x86_64"),
        (arm_image(), X86_64, "a kernel for aarch64, and the guest is x86_64"),
    ],
)
def test_a_kernel_of_the_wrong_architecture_is_named(
    image: bytes, wanted: Architecture, said: str
) -> None:
    with pytest.raises(HostUnready, match=said):
        extract_kernel(image, wanted, name="k")


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (bzimage(b""), X86_64),
        (VMLINUX, X86_64),
        (arm_image(), AARCH64),
        (elf(183), AARCH64),
        (zboot(b"x" * 600), AARCH64),
        (gzip.compress(arm_image()), AARCH64),
        (elf(40), None),
        (b"#!/bin/sh", None),
        (b"", None),
        (b"\x7fELF", None),
    ],
)
def test_the_first_bytes_of_a_kernel_tell_its_architecture(
    image: bytes, found: Architecture | None
) -> None:
    assert kernel_architecture(image[:HEAD_BYTES]) is found
