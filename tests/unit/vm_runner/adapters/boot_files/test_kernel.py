import gzip
import lzma
import struct
from collections.abc import Callable

import pytest
import zstandard

from services.core.errors import HostUnready
from services.vm_runner.adapters.boot_files.kernel import (
    decompress_module,
    extract_vmlinux,
    module_needs,
    order_modules,
)

VMLINUX = b"\x7fELF" + bytes(range(256)) * 64


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
    assert extract_vmlinux(bzimage(compress(VMLINUX)), name="k") == VMLINUX


def test_a_kernel_that_is_not_compressed_stays_as_it_is() -> None:
    assert extract_vmlinux(VMLINUX, name="k") == VMLINUX


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "neither"),
        (b"#!/bin/sh\n" * 100, "neither"),
        (bzimage(gzip.compress(VMLINUX), version=0x0200), "too old"),
        (bzimage(b"unknown"), "compression is not known"),
        (bzimage(gzip.compress(b"no kernel")), "no ELF"),
        (bzimage(gzip.compress(VMLINUX)[:-20]), "cut off"),
        (bzimage(b"\x28\xb5\x2f\xfd" + bytes(30)), "decompress"),
        (bzimage(lzma.compress(VMLINUX)[:40]), "cut off"),
    ],
    ids=["empty", "script", "old", "unknown", "no elf", "cut gzip", "bad zstd", "cut xz"],
)
def test_what_cannot_be_booted_is_reported_with_the_reason_and_the_way_out(
    image: bytes, reason: str
) -> None:
    with pytest.raises(HostUnready, match=reason) as caught:
        extract_vmlinux(image, name="/boot/vmlinuz")

    assert "/boot/vmlinuz" in caught.value.message
    assert caught.value.hint


def module(*needs: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + ",".join(needs).encode() + b"\0name=m\0"


@pytest.mark.parametrize("compress", [bytes, lzma.compress, gzip.compress, zstandard.compress])
def test_a_module_is_decompressed_by_its_content(compress: Callable[[bytes], bytes]) -> None:
    assert decompress_module(compress(module("a")), name="m") == module("a")


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(HostUnready):
        decompress_module(b"text", name="m")


def test_a_module_says_what_it_needs() -> None:
    assert module_needs(module("crc16", "mbcache")) == ("crc16", "mbcache")
    assert module_needs(module()) == ()
    assert module_needs(b"\x7fELF") == ()


def test_modules_come_behind_what_they_need() -> None:
    available = {
        "erofs": module("libcrc32c", "netfs"),
        "netfs": module("libcrc32c"),
        "libcrc32c": module(),
        "virtio_blk": module(),
    }
    ordered = order_modules(["virtio-blk", "erofs", "overlay"], available.get)

    assert [name for name, _ in ordered] == ["virtio_blk", "libcrc32c", "netfs", "erofs"]


def test_modules_that_need_each_other_end() -> None:
    available = {"a": module("b"), "b": module("a")}

    assert len(order_modules(["a"], available.get)) == 2
