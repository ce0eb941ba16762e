import gzip
import lzma
from collections.abc import Callable

import pytest
import zstandard

from services.core.errors import HostUnready
from services.vm_runner.adapters.boot_files.kernel import (
    decompress_module,
    module_needs,
    order_modules,
)


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
