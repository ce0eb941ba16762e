"""Takes a distribution's Linux kernel apart: what QEMU boots in it, what a module needs. Pure."""

import lzma
import zlib
from collections.abc import Callable, Iterable, Mapping

import zstandard

from services.core.errors import HostUnready

ELF_MAGIC = b"\x7fELF"
_MODULE_MAX = 64 << 20


def decompressed(decompress: Callable[[bytes], bytes], payload: bytes, name: str) -> bytes:
    """Returns a payload decompressed.

    Raises:
        HostUnready: it does not decompress.
    """
    try:
        return decompress(payload)
    except (EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise no_kernel(name, f"it does not decompress: {error}") from error


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


DECOMPRESSORS: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"\x28\xb5\x2f\xfd": _unzstd,
    b"\x1f\x8b\x08": _gunzip,
    b"\xfd7zXZ\x00": _unxz,
}
"""How the formats are decompressed, each known by its first bytes."""


def no_kernel(name: str, reason: str) -> HostUnready:
    """Returns the error of a file that is no kernel, or none for this machine."""
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
    for magic, decompress in DECOMPRESSORS.items():
        if data.startswith(magic):
            data = decompressed(decompress, data, name)
            break
    if data[:4] != ELF_MAGIC or len(data) > _MODULE_MAX:
        raise no_kernel(name, "it is no kernel module")
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
