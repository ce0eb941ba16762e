"""Takes a distribution's Linux kernel apart: the ELF image in a bzImage, what a module needs.

Pure: bytes in, bytes out. QEMU boots an uncompressed `vmlinux` through its PVH entry, which saves
the guest its own decompression (about a second under emulation).
"""

import lzma
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping

import zstandard

from services.core.errors import HostUnready

_ELF_MAGIC = b"\x7fELF"
_BOOT_MAGIC = b"HdrS"
_PAYLOAD_VERSION = 0x0208
_MODULE_MAX = 64 << 20


def extract_vmlinux(image: bytes, *, name: str) -> bytes:
    """Returns the uncompressed kernel of a bzImage; an ELF file is returned as it is.

    The places are those of the x86 boot protocol: setup sectors at 0x1f1, the payload's offset and
    length at 0x248 from protocol 2.08 on.

    Raises:
        HostUnready: the file is no kernel, or compressed in a way that is not known here.
    """
    if image[:4] == _ELF_MAGIC:
        return image
    if len(image) < 0x250 or image[0x202:0x206] != _BOOT_MAGIC:  # noqa: PLR2004 - the header's end
        raise _no_kernel(name, "it is neither an ELF file nor a bzImage")
    (version,) = struct.unpack_from("<H", image, 0x206)
    if version < _PAYLOAD_VERSION:
        raise _no_kernel(name, "its boot protocol is too old")
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = ((image[0x1F1] or 4) + 1) * 512 + offset
    payload = image[start : start + length]
    for magic, decompress in _DECOMPRESSORS.items():
        if payload.startswith(magic):
            kernel = _decompressed(decompress, payload, name)
            if kernel[:4] != _ELF_MAGIC:
                raise _no_kernel(name, "what it holds is no ELF file")
            return kernel
    raise _no_kernel(name, "its compression is not known")


def _decompressed(decompress: Callable[[bytes], bytes], payload: bytes, name: str) -> bytes:
    try:
        return decompress(payload)
    except (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise _no_kernel(name, f"it does not decompress: {error}") from error


def _unzstd(payload: bytes) -> bytes:
    # Behind the frame stands its size, for the kernel's own use.
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
    data = decompressor.decompress(payload)
    if not decompressor.eof:
        raise EOFError("it is cut off")
    return data


def _gunzip(payload: bytes) -> bytes:
    decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # with gzip's header
    data = decompressor.decompress(payload)
    if not decompressor.eof:
        raise EOFError("it is cut off")
    return data


def _unxz(payload: bytes) -> bytes:
    decompressor = lzma.LZMADecompressor()
    data = decompressor.decompress(payload)
    if not decompressor.eof:
        raise EOFError("it is cut off")
    return data


_DECOMPRESSORS: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"\x28\xb5\x2f\xfd": _unzstd,
    b"\x1f\x8b\x08": _gunzip,
    b"\xfd7zXZ\x00": _unxz,
}


def _no_kernel(name: str, reason: str) -> HostUnready:
    return HostUnready(
        f"{name} cannot be booted: {reason}",
        hint="name another kernel with vm_runner.kernel",
        metadata={"kernel": name},
    )


def decompress_module(data: bytes, *, name: str) -> bytes:
    """Returns a kernel module's ELF file from a `.ko`, `.ko.xz`, `.ko.zst` or `.ko.gz`.

    Raises:
        HostUnready: it does not decompress.
    """
    for magic, decompress in _DECOMPRESSORS.items():
        if data.startswith(magic):
            data = _decompressed(decompress, data, name)
            break
    if data[:4] != _ELF_MAGIC or len(data) > _MODULE_MAX:
        raise _no_kernel(name, "it is no kernel module")
    return data


def module_needs(module: bytes) -> tuple[str, ...]:
    """Returns the names of the modules that one needs, from its `.modinfo` (`depends=a,b`)."""
    start = module.find(b"\0depends=")
    if start < 0:
        return ()
    start += len(b"\0depends=")
    names = module[start : module.index(b"\0", start)].decode("ascii", "replace")
    return tuple(name for name in names.split(",") if name)


def order_modules(
    wanted: Iterable[str], load: Callable[[str], bytes | None]
) -> list[tuple[str, bytes]]:
    """Returns modules with everything they need, each behind its needs.

    Args:
        wanted: names of modules; one that `load` does not know is taken to be built in.
        load: returns a module's uncompressed ELF file by its name.
    """
    ordered: dict[str, bytes] = {}
    under_way: set[str] = set()

    def visit(name: str) -> None:
        name = name.replace("-", "_")
        if name in ordered or name in under_way:
            return
        under_way.add(name)
        module = load(name)
        if module is None:
            return
        for need in module_needs(module):
            visit(need)
        ordered[name] = module

    for name in wanted:
        visit(name)
    return list(ordered.items())
