"""Sparse files in tar archives: GNU's own header and the three forms in extended headers.

Format: GNU tar manual, "Storing Sparse Files". A map lists the data segments of the file; what lies
between them is zeros that are not in the archive.
"""

import re
from collections.abc import Iterator

from services.archives.limits import TarLimits, unsafe
from services.archives.pax import Records, parse_decimal
from services.archives.stream import ByteStream
from services.archives.tar_header import BLOCK_BYTES, Header, parse_number

Segments = list[tuple[int, int]]
"""Offset and length of each run of data."""

_MAP_AT = 386
_MAP_ENTRIES = 4
_EXTENDED_AT = 482
_REAL_SIZE_AT = 483
_MORE_ENTRIES = 21
_MORE_AT = 504
_ENTRY_BYTES = 24
_NUMBER_LINE_MAX = 20
_LINE = re.compile(rb"([0-9]{1,19})\n")


class Sparse:
    """The map of one sparse file.

    Attributes:
        real_size: bytes of the file with its holes.
        segments: runs of data, ascending, not overlapping.
        map_bytes: bytes of the map where it stands before the data, else 0.
    """

    def __init__(self, real_size: int, segments: Segments, map_bytes: int = 0) -> None:
        self.real_size = real_size
        self.segments = segments
        self.map_bytes = map_bytes

    def check(self, stored: int, name: bytes) -> None:
        """Holds the map against the bytes that are stored for the file.

        Raises:
            ArchiveUnsafe: segments overlap, leave the file, or are not what is stored.
        """
        end = 0
        for offset, length in self.segments:
            if offset < end or length < 0 or offset + length > self.real_size:
                raise unsafe(name, "its sparse map is contradictory")
            end = offset + length
        if sum(length for _, length in self.segments) != stored:
            raise unsafe(name, "its sparse map does not match its size")


def read_gnu_map(header: Header, stream: ByteStream, limits: TarLimits) -> Sparse:
    """The map of GNU's own sparse header (type `S`), with the blocks that continue it."""
    block, name = header.block, header.name
    segments = list(_gnu_entries(block, _MAP_AT, _MAP_ENTRIES, name))
    more = block[_EXTENDED_AT]
    while more:
        block = stream.read(BLOCK_BYTES, within=name)
        segments += _gnu_entries(block, 0, _MORE_ENTRIES, name)
        more = block[_MORE_AT]
        if len(segments) > limits.sparse_segments:
            raise unsafe(name, f"its sparse map has more than {limits.sparse_segments} segments")
    real_size = parse_number(
        header.block[_REAL_SIZE_AT : _REAL_SIZE_AT + 12], name, "sparse file size"
    )
    return Sparse(real_size, segments)


def _gnu_entries(block: bytes, at: int, count: int, name: bytes) -> Iterator[tuple[int, int]]:
    for start in range(at, at + count * _ENTRY_BYTES, _ENTRY_BYTES):
        if block[start] == 0:
            return
        yield (
            parse_number(block[start : start + 12], name, "sparse map"),
            parse_number(block[start + 12 : start + 24], name, "sparse map"),
        )


def pax_map(
    records: Records, stream: ByteStream, stored: int, name: bytes, limits: TarLimits
) -> Sparse | None:
    """The map that extended headers give for a regular file; None where it is not sparse.

    Form 1.0 has the map before the file's data: it is read from `stream`, of whose next `stored`
    bytes it is part.
    """
    fields = dict(records)
    if b"GNU.sparse.major" in fields:
        version = (fields[b"GNU.sparse.major"], fields.get(b"GNU.sparse.minor", b""))
        if version != (b"1", b"0"):
            raise unsafe(name, "its sparse format is unknown")
        real_size = parse_decimal(fields.get(b"GNU.sparse.realsize", b""), name, "sparse file size")
        segments, map_bytes = _read_leading_map(stream, stored, name, limits)
        return Sparse(real_size, segments, map_bytes)
    if b"GNU.sparse.map" in fields:
        numbers = [
            parse_decimal(part, name, "sparse map")
            for part in fields[b"GNU.sparse.map"].split(b",")
            if part
        ]
    else:
        numbers = _repeated_map(records, name)
        if not numbers and b"GNU.sparse.size" not in fields:
            return None
    real_size = parse_decimal(fields.get(b"GNU.sparse.size", b""), name, "sparse file size")
    return Sparse(real_size, _paired(numbers, name, limits))


def _repeated_map(records: Records, name: bytes) -> list[int]:
    numbers: list[int] = []
    for keyword, value in records:
        if keyword in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if (len(numbers) % 2 == 0) is not (keyword == b"GNU.sparse.offset"):
                raise unsafe(name, "its sparse map is out of order")
            numbers.append(parse_decimal(value, name, "sparse map"))
    return numbers


def _read_leading_map(
    stream: ByteStream, stored: int, name: bytes, limits: TarLimits
) -> tuple[Segments, int]:
    text = b""
    taken = 0
    numbers: list[int] = []
    count = -1
    while count < 0 or len(numbers) < 2 * count:
        match = _LINE.match(text)
        if match is None:
            if len(text) > _NUMBER_LINE_MAX or taken + BLOCK_BYTES > stored:
                raise unsafe(name, "its sparse map is malformed")
            text += stream.read(BLOCK_BYTES, within=name)
            taken += BLOCK_BYTES
            continue
        text = text[match.end() :]
        if count >= 0:
            numbers.append(int(match[1]))
        else:
            count = int(match[1])
            if count > limits.sparse_segments:
                raise unsafe(
                    name, f"its sparse map has more than {limits.sparse_segments} segments"
                )
    return _paired(numbers, name, limits), taken


def _paired(numbers: list[int], name: bytes, limits: TarLimits) -> Segments:
    if len(numbers) % 2:
        raise unsafe(name, "its sparse map is incomplete")
    if len(numbers) > 2 * limits.sparse_segments:
        raise unsafe(name, f"its sparse map has more than {limits.sparse_segments} segments")
    return list(zip(numbers[::2], numbers[1::2], strict=True))
