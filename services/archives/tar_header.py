"""One header block of a tar archive: V7, ustar, GNU.

Formats: POSIX.1-2017 pax "ustar Interchange Format", GNU tar manual "Basic Tar Format".
"""

import re
import struct
from dataclasses import dataclass
from functools import lru_cache

from services.archives.limits import unsafe

BLOCK_BYTES = 512

_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_CHECKSUM_AT = 148
_CHECKSUM_BLANK = 8 * ord(" ")
_USTAR_MAGIC = b"ustar\x00"
_GNU_MAGIC = b"ustar "
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_BASE256_POSITIVE = 0x80
_BASE256_NEGATIVE = 0xFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The fields of a header block, as they stand there.

    Attributes:
        name: the path, prefix included.
        kind: the type flag, one byte.
        size: bytes that follow, for the kinds that have data.
        link_name: target of a link.
        block: the whole block, for fields of single formats.
        is_gnu: whether the block has GNU's magic.
    """

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link_name: bytes
    major: int
    minor: int
    block: bytes
    is_gnu: bool


def parse_header(block: bytes) -> Header:
    """The fields of a block that is not all zeros.

    Raises:
        ArchiveUnsafe: the checksum or a number is wrong.
    """
    (
        name,
        mode,
        uid,
        gid,
        size,
        mtime,
        checksum,
        kind,
        link_name,
        magic,
        _user,
        _group,
        major,
        minor,
        prefix,
        _rest,
    ) = _FIELDS.unpack(block)
    name = until_nul(name)
    _check_sum(block, checksum, name)
    is_ustar = magic.startswith(_USTAR_MAGIC)
    is_gnu = magic.startswith(_GNU_MAGIC)
    if is_ustar and prefix[0]:
        name = until_nul(prefix) + b"/" + name
    has_device = (is_ustar or is_gnu) and kind in b"34"
    header = Header(
        name=name,
        kind=kind,
        mode=parse_number(mode, name, "mode"),
        uid=parse_number(uid, name, "uid"),
        gid=parse_number(gid, name, "gid"),
        size=parse_number(size, name, "size"),
        mtime=parse_number(mtime, name, "mtime"),
        link_name=until_nul(link_name),
        major=parse_number(major, name, "device") if has_device else 0,
        minor=parse_number(minor, name, "device") if has_device else 0,
        block=block,
        is_gnu=is_gnu,
    )
    if header.size < 0 or header.mode < 0 or header.uid < 0 or header.gid < 0:
        raise unsafe(name, "a size, mode or owner is negative")
    return header


def parse_number(field: bytes, name: bytes, what: str) -> int:
    """A number of a header: octal digits, or base 256 where the first bit is set.

    Raises:
        ArchiveUnsafe: it is neither; the message names the entry and `what`.
    """
    number = _number(field)
    if number is None:
        raise unsafe(name, f"its {what} is not a number")
    return number


@lru_cache(maxsize=4096)
def _number(field: bytes) -> int | None:
    """The number in a field, or None; modes and owners are the same for most entries."""
    if field[0] & _BASE256_POSITIVE:
        if field[0] == _BASE256_POSITIVE:
            return int.from_bytes(field[1:], "big")
        return int.from_bytes(field, "big", signed=True) if field[0] == _BASE256_NEGATIVE else None
    match = _OCTAL.fullmatch(until_nul(field))
    return int(match[1] or b"0", 8) if match else None


def until_nul(field: bytes) -> bytes:
    """A text field without its padding."""
    end = field.find(b"\0")
    return field if end < 0 else field[:end]


def _check_sum(block: bytes, field: bytes, name: bytes) -> None:
    expected = parse_number(field, name, "checksum")
    total = sum(block) - sum(field) + _CHECKSUM_BLANK
    if total == expected:
        return
    # Old archivers summed signed bytes.
    others = block[:_CHECKSUM_AT] + block[_CHECKSUM_AT + len(field) :]
    signed = total - 256 * sum(byte >= 128 for byte in others)  # noqa: PLR2004 - the sign bit
    if signed != expected:
        raise unsafe(name, "the checksum of its header is wrong")
