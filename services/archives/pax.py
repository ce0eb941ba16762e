"""Extended (PAX) headers: records that overrule the fields of the entry that follows.

Format: POSIX.1-2017 pax, "pax Extended Header"; `SCHILY.xattr.` is star's, `LIBARCHIVE.xattr.`
libarchive's, `GNU.sparse.` GNU tar's.
"""

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator
from urllib.parse import unquote_to_bytes

from services.archives.limits import unsafe

Records = list[tuple[bytes, bytes]]
"""Keywords and values in their order; GNU's oldest sparse format repeats keywords."""

_LENGTH_DIGITS_MAX = 9
_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]{0,100}))?")
_SCHILY = b"SCHILY.xattr."
_LIBARCHIVE = b"LIBARCHIVE.xattr."
_NUMBER = re.compile(rb"[0-9]{1,19}")


def parse_records(data: bytes, name: bytes) -> Records:
    """The records of one extended header.

    Raises:
        ArchiveUnsafe: they are malformed.
    """
    return list(_iter_records(data, name))


def _iter_records(data: bytes, name: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + _LENGTH_DIGITS_MAX + 1)
        digits = data[at:space] if space > 0 else b""
        if not digits.isdigit():
            raise unsafe(name, "a record of its extended header has no length")
        end = at + int(digits)
        record = data[space + 1 : end]
        keyword, separator, value = record[:-1].partition(b"=")
        if end > len(data) or not record.endswith(b"\n") or not separator or not keyword:
            raise unsafe(name, "a record of its extended header is malformed")
        if b"\0" in keyword:
            raise unsafe(name, "a keyword of its extended header holds a NUL")
        yield keyword, value
        at = end


def parse_time(value: bytes, name: bytes) -> tuple[int, int]:
    """A time as whole seconds and nanoseconds, the latter never negative; finer parts are cut.

    Raises:
        ArchiveUnsafe: it is not a decimal number.
    """
    match = _TIME.fullmatch(value)
    if match is None:
        raise unsafe(name, "its time is not a number")
    seconds = int(match[2])
    nanoseconds = int((match[3] or b"")[:9].ljust(9, b"0"))
    if not match[1]:
        return seconds, nanoseconds
    return (-seconds - 1, 1_000_000_000 - nanoseconds) if nanoseconds else (-seconds, 0)


def parse_decimal(value: bytes, name: bytes, what: str) -> int:
    """A decimal number that is not negative.

    Raises:
        ArchiveUnsafe: it is no number; the message names the entry and `what`.
    """
    if _NUMBER.fullmatch(value) is None:
        raise unsafe(name, f"its {what} is not a number")
    return int(value)


def parse_xattrs(records: Records, name: bytes) -> dict[bytes, bytes]:
    """The extended attributes among the records, also those with an empty value.

    Where both archivers' forms give one attribute, star's decides.

    Raises:
        ArchiveUnsafe: one is malformed.
    """
    xattrs: dict[bytes, bytes] = {}
    for keyword, value in records:
        if keyword.startswith(_LIBARCHIVE):
            try:
                decoded = b64decode(value + b"=" * (-len(value) % 4), validate=True)
            except Base64Error:
                raise unsafe(name, "an extended attribute is not base64") from None
            xattrs[unquote_to_bytes(keyword[len(_LIBARCHIVE) :])] = decoded
    for keyword, value in records:
        if keyword.startswith(_SCHILY):
            xattrs[keyword[len(_SCHILY) :]] = value
    return xattrs
