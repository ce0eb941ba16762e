"""The path of a request in every way that a server may read it.

Servers and proxies differ in how they read `%2e`, `%2f`, `//`, `;x`, a backslash, and escapes of
escapes. A rule about paths that knows one reading can be passed by another. So each path is taken
in all its readings, and rules permit it only if they permit each of them.
"""

import re
from collections.abc import Iterator
from itertools import product
from typing import Final
from urllib.parse import quote

from services.core.errors import RequestInvalid

PATH_MOST: Final = 8192
"""Characters of a path that rules are asked about."""
_DEPTH_MOST: Final = 4
_READINGS_MOST: Final = 64

_ASCII: Final = "".join(map(chr, range(0x21, 0x7F)))
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNSAFE = re.compile(r"[^\x21-\x7e]|#")
_PARAMETERS = re.compile(r";[^/]*")
_SLASHES = re.compile(r"/{2,}")


class PathAmbiguous(RequestInvalid):
    """A path that no two servers read alike, so that no rule can permit it."""


def path_of_target(target: str) -> str:
    """Returns the path of a request target in origin form: without the query."""
    return target.partition("?")[0]


def readings(path: str) -> tuple[str, ...]:
    """Returns the readings of a path, the ordinary one first; each begins with a slash.

    Args:
        path: as sent, without the query.

    Raises:
        PathAmbiguous: it is no path, too long, holds control characters also behind escapes, or has
            escapes of escapes without end.
    """
    if not path.startswith("/") or len(path) > PATH_MOST:
        raise _ambiguous(path)
    found = dict.fromkeys(_iter_readings(path))
    if len(found) > _READINGS_MOST:
        raise _ambiguous(path)
    return tuple(found)


def normalize_pattern(pattern: str) -> str:
    """Returns the path pattern of a rule as it is held against readings.

    Escapes of ASCII are decoded but that of a slash, other characters are escaped.
    """
    return _ESCAPE.sub(_pattern_character, quote(pattern, safe=_ASCII))


def _pattern_character(match: "re.Match[str]") -> str:
    code = int(match[1], 16)
    plain = 0x20 <= code < 0x7F and chr(code) not in "/*"  # noqa: PLR2004 - printable ASCII
    return chr(code) if plain else match[0].upper()


def normalize(path: str) -> str:
    """Returns the ordinary reading of a path, to show it and to write rules for it.

    Raises:
        PathAmbiguous: as `readings`.
    """
    return readings(path)[0]


def _iter_readings(path: str) -> Iterator[str]:
    texts = _decoded(path)
    for text, has_backslashes, merges, has_parameters in product(
        texts, (False, True), (True, False), (False, True)
    ):
        read = _PARAMETERS.sub("", text) if has_parameters else text
        if has_backslashes:
            read = read.replace("\\", "/")
        yield _without_dots(_SLASHES.sub("/", read) if merges else read)


def _decoded(path: str) -> list[str]:
    """Returns a path decoded once with escaped slashes kept, then wholly, until nothing changes."""
    if _BAD_ESCAPE.search(path) or _UNSAFE.search(path):
        raise _ambiguous(path)
    texts = [_decode(path, keep="/")]
    whole = path
    for _ in range(_DEPTH_MOST):
        decoded = _decode(whole)
        if decoded == whole:
            return texts
        texts.append(decoded)
        whole = decoded
    raise _ambiguous(path)


def _decode(text: str, *, keep: str = "") -> str:
    """Decodes escapes; bytes beyond ASCII keep theirs, in capitals."""

    def character(match: "re.Match[str]") -> str:
        code = int(match[1], 16)
        if code < 0x20 or code == 0x7F:  # noqa: PLR2004 - control characters
            raise _ambiguous(text)
        if code > 0x7F or chr(code) in keep:  # noqa: PLR2004 - ASCII
            return match[0].upper()
        return chr(code)

    return _ESCAPE.sub(character, text)


def _without_dots(path: str) -> str:
    """Removes dot segments, as RFC 3986, section 5.2.4."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for place, segment in enumerate(segments):
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
            continue
        if place == len(segments) - 1:
            kept.append("")
    return "/" + "/".join(kept)


def _ambiguous(path: str) -> PathAmbiguous:
    return PathAmbiguous(
        f"servers read the path {path[:100]!r} in different ways",
        hint="send it without control characters and without escapes of escapes",
    )
