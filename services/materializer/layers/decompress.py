"""Layers as they are compressed: told by their first bytes, never by their media type."""

from collections.abc import Iterator
from typing import BinaryIO, cast

import zstandard
from isal import isal_zlib

from services.materializer.layers.limits import LayerLimits, unsafe

CHUNK_BYTES = 1 << 20
"""Bytes of decompressed data handed on at a time, at most."""

_READ_BYTES = 256 << 10
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = b"\x2a\x4d\x18"
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
    """
    head = blob.read(_READ_BYTES)
    if head.startswith(_GZIP_MAGIC):
        chunks = _gunzip(head, blob)
    elif head.startswith(_ZSTD_MAGIC) or head[1:4] == _ZSTD_SKIPPABLE:
        chunks = _unzstd(head, blob)
    else:
        chunks = _plain(head, blob)
    produced = 0
    for chunk in chunks:
        produced += len(chunk)
        if produced > limits.layer_bytes:
            raise unsafe(b"", f"it has more than {limits.layer_bytes} bytes uncompressed")
        if produced > limits.expansion_free_bytes and produced > limits.expansion * blob.tell():
            raise unsafe(b"", f"it expands more than {limits.expansion} times (a bomb)")
        yield chunk


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
        data = member.unused_data
        data = _next_member(data, blob)


def _next_member(data: bytes, blob: BinaryIO) -> bytes:
    while True:
        data = data.lstrip(b"\0")
        if len(data) < len(_GZIP_MAGIC):
            more = blob.read(_READ_BYTES)
            if more:
                data += more
                continue
        if data and not data.startswith(_GZIP_MAGIC):
            raise unsafe(b"", "its gzip data is followed by something else")
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
    input at once: so blocks, of which each has at most 128 KiB of content, are told apart here.
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
