"""What is inside a file that may be compressed: gzip, bzip2, xz or zstd, known by its first bytes.

These are what `docker load` and skopeo take. Nothing is held but one chunk and the window that the
format needs; what expands as no image does is refused.
"""

import bz2
import enum
import lzma
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final, Protocol, cast

import zstandard
from isal import igzip_lib

from services.core.errors import ContentCorrupt, RequestInvalid

CHUNK_BYTES: Final = 1 << 20
_READ_BYTES: Final = 256 << 10
_WINDOW_MAX: Final = 128 << 20
"""What xz and zstd may hold: enough for their highest levels."""
_EXPANSION_FREE: Final = 1 << 30
_EXPANSION: Final = 200
_GZIP_ERROR = cast("type[Exception]", igzip_lib.error)  # its stub calls the class an instance


class Compression(enum.Enum):
    """How a file is compressed."""

    NONE = "none"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    ZSTD = "zstd"


class _Decompressor(Protocol):
    """One member of a file, as the decompressors of the standard library work."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


_DECOMPRESSORS: Final[dict[Compression, Callable[[], _Decompressor]]] = {
    Compression.GZIP: lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP),
    Compression.BZIP2: bz2.BZ2Decompressor,
    Compression.XZ: lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_WINDOW_MAX),
}
_HEAD_BYTES: Final = 10


def compression_of(file: BinaryIO) -> Compression:
    """Tells how a file is compressed; leaves it at its beginning."""
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return Compression.GZIP
    if head.startswith(b"\xfd7zXZ\0"):
        return Compression.XZ
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5):  # noqa: PLR2004 - a skippable frame, RFC 8878
        return Compression.ZSTD
    # The magic number alone would also be the name of a file in a tar archive.
    if head.startswith(b"BZh") and head[4:] in (b"1AY&SY", b"\x17rE8P\x90"):
        return Compression.BZIP2
    return Compression.NONE


def uncompressed(file: BinaryIO, *, what: str) -> Iterator[bytes]:
    """The content of a file in chunks of at most `CHUNK_BYTES`.

    Raises:
        ContentCorrupt: it is damaged or truncated.
        RequestInvalid: it expands beyond all measure.
    """
    compression = compression_of(file)
    produced = 0
    try:
        for chunk in _chunks(file, compression):
            produced += len(chunk)
            if compression is not Compression.NONE and produced > _EXPANSION_FREE:
                _check_expansion(produced, file.tell(), what)
            yield chunk
    except (OSError, EOFError, lzma.LZMAError, zstandard.ZstdError, _GZIP_ERROR) as error:
        raise ContentCorrupt(f"{what} is damaged: {error}") from error


def pieces(file: BinaryIO) -> Iterator[bytes]:
    """The bytes of a file as they are, in chunks of at most `CHUNK_BYTES`."""
    while chunk := file.read(CHUNK_BYTES):
        yield chunk


def _check_expansion(produced: int, consumed: int, what: str) -> None:
    if produced > _EXPANSION * consumed:
        raise RequestInvalid(
            f"{what} expands more than {_EXPANSION} times (a bomb)",
            hint="if it is meant to be so, decompress it yourself",
        )


def _chunks(file: BinaryIO, compression: Compression) -> Iterator[bytes]:
    if compression is Compression.NONE:
        yield from pieces(file)
    elif compression is Compression.ZSTD:
        window = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX)
        reader = window.stream_reader(file, read_across_frames=True, closefd=False)
        while chunk := reader.read(CHUNK_BYTES):
            yield chunk
    else:
        yield from _members(file, _DECOMPRESSORS[compression])


def _members(file: BinaryIO, begin: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """All members of a file one after the other; zeros may follow the last."""
    data = file.read(_READ_BYTES)
    while data:
        member = begin()
        while not member.eof:
            if member.needs_input and not data:
                data = file.read(_READ_BYTES)
                if not data:
                    raise EOFError("it ends too early")
            chunk = member.decompress(data, CHUNK_BYTES)
            data = b""
            if chunk:
                yield chunk
        data = member.unused_data.lstrip(b"\0")
        while not data and (more := file.read(_READ_BYTES)):
            data = more.lstrip(b"\0")
