"""The audit log of a run: JSON Lines, each with the hash of the one before.

    {"sequence":1,"time":"2026-01-31T12:00:00.000000Z","kind":"connection",…,"previous":"0…",
     "hash":"…"}

`hash` is the SHA-256 of the line without it, which ends in `}` like the whole one; `previous` is
the hash of the line before, or zeros in the first line of all. So a line that was changed, taken
out or inserted is found, and with the last hash kept elsewhere also lines that were cut off.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.core.errors import ContentCorrupt

FIRST: Final = "0" * 64
"""What the first line of a log has as the hash of the one before."""

LINE_MOST: Final = 64 * 1024
"""Bytes of the longest line."""

_END = re.compile(rb',"hash":"([0-9a-f]{64})"\}\n?\Z')


@dataclass(frozen=True, slots=True)
class Sealed:
    """A line of the log: its bytes, with the line feed, and its hash."""

    data: bytes
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line that was read and found whole."""

    values: Mapping[str, Any]
    sequence: int
    previous: str
    hash: str


def seal(values: Mapping[str, Any], *, sequence: int, previous: str) -> Sealed:
    """Returns the line of some values, which may hold strings and numbers only."""
    body = json.dumps(
        {"sequence": sequence, **values, "previous": previous}, separators=(",", ":")
    ).encode()
    digest = hashlib.sha256(body).hexdigest()
    return Sealed(body[:-1] + b',"hash":"' + digest.encode() + b'"}\n', digest)


def read_line(data: bytes) -> Line:
    """Returns a line whose own hash is right.

    Raises:
        ContentCorrupt: it is no record, or was changed.
    """
    found = _END.search(data) if len(data) <= LINE_MOST else None
    body = data[: found.start()] + b"}" if found else b""
    if found is None or hashlib.sha256(body).hexdigest().encode() != found[1]:
        raise ContentCorrupt("a line of the audit log was changed, or is cut off")
    values = json.loads(body)
    sequence, previous = values.pop("sequence", None), values.pop("previous", None)
    if not isinstance(sequence, int) or not isinstance(previous, str):
        raise ContentCorrupt(
            "a line of the audit log has no sequence number or no hash of the line before it"
        )
    return Line(values=values, sequence=sequence, previous=previous, hash=found[1].decode())


def verified(lines: Iterable[bytes]) -> Iterator[Line]:
    """Yields the lines of a log that follow on each other.

    The first may be a later one: a log keeps a bounded number of lines.

    Raises:
        ContentCorrupt: a line was changed, or does not follow on the one before; the message says
            which.
    """
    before: Line | None = None
    for number, data in enumerate(lines, start=1):
        try:
            line = read_line(data)
        except ContentCorrupt as error:
            raise _broken(number, error.message) from error
        if before is None:
            if (line.sequence == 1) != (line.previous == FIRST):
                raise _broken(number, "lines before it are missing")
        elif line.previous != before.hash or line.sequence != before.sequence + 1:
            raise _broken(number, f"it does not follow on line {before.sequence}")
        yield line
        before = line


def _broken(number: int, text: str) -> ContentCorrupt:
    return ContentCorrupt(
        f"the audit log cannot be trusted from its line {number} on: {text}",
        hint="the file was changed, or the disk lost a part of it; keep it as evidence",
        metadata={"line": str(number)},
    )
