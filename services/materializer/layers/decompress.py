"""Layers as they are compressed: known by their first bytes, never by their media type."""

import bz2
import contextlib
import lzma
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol, cast

import zstandard
from isal import isal_zlib

from services.archives.limits import ArchiveUnsafe
from services.archives.tar_header import BLOCK_BYTES, parse_header
from services.core.errors import LayerUnsupported
from services.materializer.layers.limits import LayerLimits, unsafe

CHUNK_BYTES = 1 << 20
"""Bytes of decompressed data handed on at a time, at most."""

_READ_BYTES = 256 << 10
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
_XZ_MAGIC = b"\xfd7zXZ\x00"
_BZIP2_MAGIC = b"BZh"
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")
"""What follows the magic and a digit: a first block, or the end of a stream of nothing."""

_XZ_MEMORY_BYTES = 128 << 20
"""What decompressing xz may take: `xz -9` needs 65 MiB."""

_UNSUPPORTED = {
    b"\x04\x22\x4d\x18": "lz4",
    b"\x5d\x00\x00": "lzma",
    b"LZIP": "lzip",
    b"\x1f\x9d": "compress",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"PK\x03\x04": "zip",
}
_GZIP_WINDOW = 31
_GZIP_ERROR = cast("type[Exception]", isal_zlib.error)  # its stub calls the class an instance
_ZSTD_WINDOW_MAX = 128 << 20
_ZSTD_BLOCK_MAX = 128 << 10
_ZSTD_RLE = 1
_ZSTD_CHECKSUM = 4


def decompressed(blob: BinaryIO, limits: LayerLimits) -> Iterator[bytes]:
    """The uncompressed bytes of a layer in chunks of at most `CHUNK_BYTES`.

    Raises:
        LayerUnsafe: the blob is truncated or damaged, or expands beyond the limits.
        LayerUnsupported: it is compressed by a program that image builders do not use.
    """
    head = blob.read(_READ_BYTES)
    if head.startswith(_GZIP_MAGIC):
        chunks = _gunzip(head, blob)
    elif head.startswith(_ZSTD_MAGIC) or head[1:4] == _ZSTD_SKIPPABLE:
        chunks = _unzstd(head, blob)
    elif head.startswith(_XZ_MAGIC):
        chunks = _streams(head, blob, "xz", _XZ_MAGIC, _new_xz)
    elif head.startswith(_BZIP2_MAGIC) and head[4:10] in _BZIP2_BLOCKS:
        chunks = _streams(head, blob, "bzip2", _BZIP2_MAGIC, bz2.BZ2Decompressor)
    else:
        _refuse_unsupported(head)
        chunks = _plain(head, blob)
    produced = 0
    for chunk in chunks:
        produced += len(chunk)
        if produced > limits.layer_bytes:
            raise unsafe(b"", f"it has more than {limits.layer_bytes} bytes uncompressed")
        if produced > limits.expansion_free_bytes and produced > limits.expansion * blob.tell():
            raise unsafe(b"", f"it expands more than {limits.expansion} times (a bomb)")
        yield chunk


def _refuse_unsupported(head: bytes) -> None:
    """Names the compression of what is no archive; a first entry may be called `LZIP`, too."""
    if len(head) >= BLOCK_BYTES:
        with contextlib.suppress(ArchiveUnsafe):
            parse_header(head[:BLOCK_BYTES])
            return
    for magic, name in _UNSUPPORTED.items():
        if head.startswith(magic):
            raise LayerUnsupported(
                f"the layer is compressed with {name}",
                hint="lns reads layers that are plain or compressed with gzip, zstd, xz or bzip2",
            )


class _Decompressor(Protocol):
    """What the standard library's decompressors of one stream have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _new_xz() -> _Decompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)


def _streams(
    data: bytes, blob: BinaryIO, name: str, magic: bytes, new: Callable[[], _Decompressor]
) -> Iterator[bytes]:
    """One or more streams of xz or bzip2; zeros may follow each, as xz pads them."""
    while data:
        stream = new()
        while not stream.eof:
            try:
                chunk = stream.decompress(data, CHUNK_BYTES)
            except (lzma.LZMAError, OSError, EOFError) as error:
                raise unsafe(b"", f"its {name} data is damaged: {error}") from None
            if chunk:
                yield chunk
            if stream.eof:
                break
            data = blob.read(_READ_BYTES) if stream.needs_input else b""
            if stream.needs_input and not data:
                raise unsafe(b"", f"its {name} data ends too early (truncated)")
        data = _next_stream(stream.unused_data, blob, name, magic)


def _plain(head: bytes, blob: BinaryIO) -> Iterator[bytes]:
    while head:
        yield head
        head = blob.read(CHUNK_BYTES)


def _gunzip(data: bytes, blob: BinaryIO) -> Iterator[bytes]:
    """One or more gzip members; zeros may follow the last."""
    while data:
        member = isal_zlib.decompressobj(_GZIP_WINDOW)
        while True:
            try:
                chunk = member.decompress(data, CHUNK_BYTES)
            except _GZIP_ERROR as error:
                raise unsafe(b"", f"its gzip data is damaged: {error}") from None
            if chunk:
                yield chunk
            if member.eof:
                break
            data = member.unconsumed_tail or blob.read(_READ_BYTES)
            if not data and not chunk:
                raise unsafe(b"", "its gzip data ends too early (truncated)")
        data = _next_stream(member.unused_data, blob, "gzip", _GZIP_MAGIC)


def _next_stream(data: bytes, blob: BinaryIO, name: str, magic: bytes) -> bytes:
    """What follows one compressed stream: another one, or nothing but zeros."""
    while True:
        data = data.lstrip(b"\0")
        if len(data) < len(magic):
            more = blob.read(_READ_BYTES)
            if more:
                data += more
                continue
        if data and not data.startswith(magic):
            raise unsafe(b"", f"its {name} data is followed by something else")
        return data


class _Blob:
    """Reads exact numbers of bytes from a file whose beginning has been read already."""

    def __init__(self, head: bytes, blob: BinaryIO) -> None:
        self._head = head
        self._at = 0
        self._blob = blob

    def read(self, size: int) -> bytes:
        """The next `size` bytes; raises LayerUnsafe if there are fewer."""
        data = self.read_or_end(size)
        if len(data) < size:
            raise unsafe(b"", "its zstd data ends too early (truncated)")
        return data

    def read_or_end(self, size: int) -> bytes:
        """The next `size` bytes, or what is left."""
        while len(self._head) - self._at < size:
            more = self._blob.read(_READ_BYTES)
            if not more:
                break
            self._head = self._head[self._at :] + more
            self._at = 0
        data = self._head[self._at : self._at + size]
        self._at += len(data)
        return data


def _unzstd(head: bytes, blob: BinaryIO) -> Iterator[bytes]:
    """Zstandard frames (RFC 8878), block by block.

    The library would take a frame that is cut off for a whole one, and would decompress all of its
    input at once: so blocks, of which each has at most 128 KiB of content, are separated here.
    """
    source = _Blob(head, blob)
    while magic := source.read_or_end(4):
        if magic[1:] == _ZSTD_SKIPPABLE:
            left = int.from_bytes(source.read(4), "little")
            while left:
                left -= len(source.read(min(left, _READ_BYTES)))
            continue
        if magic != _ZSTD_MAGIC:
            raise unsafe(b"", "its zstd data is followed by something else")
        try:
            yield from _gathered(_frame(source))
        except zstandard.ZstdError as error:
            raise unsafe(b"", f"its zstd data is damaged: {error}") from None


def _frame(source: _Blob) -> Iterator[bytes]:
    """One frame, whose magic number has been read."""
    descriptor = source.read(1)
    flags = descriptor[0]
    single_segment = flags >> 5 & 1
    content_size = (single_segment, 2, 4, 8)[flags >> 6]
    dictionary = (0, 1, 2, 4)[flags & 3]
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_MAX).decompressobj()
    rest = source.read(1 - single_segment + dictionary + content_size)
    yield decompressor.decompress(_ZSTD_MAGIC + descriptor + rest)
    last = False
    while not last:
        header = source.read(3)
        number = int.from_bytes(header, "little")
        last = bool(number & 1)
        size = 1 if number >> 1 & 3 == _ZSTD_RLE else number >> 3
        if size > _ZSTD_BLOCK_MAX:
            raise unsafe(b"", "its zstd data is damaged: a block is too large")
        yield decompressor.decompress(header + source.read(size))
    if flags & _ZSTD_CHECKSUM:
        yield decompressor.decompress(source.read(4))
    if not decompressor.eof:
        raise unsafe(b"", "its zstd data is damaged: a frame does not end")


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in larger chunks."""
    gathered: list[bytes] = []
    size = 0
    for piece in pieces:
        gathered.append(piece)
        size += len(piece)
        if size >= CHUNK_BYTES - _ZSTD_BLOCK_MAX:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)
