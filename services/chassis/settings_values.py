"""Single values of settings: how they are written in YAML and in variables.

str, int, float, bool, Path, StrEnum     as they are
Seconds                                  `250ms`, `30s`, `5m`, `2h`, `7d`
ByteCount                                `512KiB`, `64MiB`, `4GiB`, `1TiB`, `100B`
tuple[X, ...]                            a list; `a,b` in a variable
Mapping[str, X]                          a mapping; not in a variable
X | None                                 X, or left out
"""

import enum
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

Seconds = Annotated[float, "duration"]
"""A span of time in seconds, written with its unit."""

ByteCount = Annotated[int, "size"]
"""A number of bytes, written with its binary unit."""

_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_WORDS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


def parse_duration(text: str) -> float:
    """Returns the seconds of a text such as `30s`.

    Raises:
        ValueError: it is not a number with a unit.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if match is None:
        raise ValueError(f"`{text}` is not a duration such as 250ms, 30s, 5m, 2h, 7d")
    return float(match[1]) * _DURATION_UNITS[match[2]]


def parse_size(text: str) -> int:
    """Returns the bytes of a text such as `512MiB`.

    Raises:
        ValueError: it is not a whole number with a unit.
    """
    match = re.fullmatch(r"(\d{1,15})(B|KiB|MiB|GiB|TiB)", text)
    if match is None:
        raise ValueError(f"`{text}` is not a size such as 100B, 512KiB, 64MiB, 4GiB")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def format_duration(seconds: float) -> str:
    """Returns the shortest exact text that `parse_duration` reads back."""
    for unit in ("d", "h", "m", "s"):
        count = seconds / _DURATION_UNITS[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    milliseconds = f"{seconds * 1000:.3f}".rstrip("0").rstrip(".")
    return f"{milliseconds}ms" if seconds else "0s"


def format_size(count: int) -> str:
    """Returns the shortest exact text that `parse_size` reads back."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if count and count % _SIZE_UNITS[unit] == 0:
            return f"{count // _SIZE_UNITS[unit]}{unit}"
    return f"{count}B"


def from_text(hint: Any, text: str) -> Any:
    """Returns the value that the text of an environment variable stands for.

    Raises:
        ValueError: it does not fit; the message is for a person.
    """
    hint = _without_none(hint)
    origin = typing.get_origin(hint)
    if origin is tuple:
        item = typing.get_args(hint)[0]
        return tuple(from_text(item, part.strip()) for part in text.split(",") if part.strip())
    if origin is not None and issubclass(origin, Mapping):
        raise ValueError("is a mapping and can only be set in the file")
    if hint is bool:
        if text.lower() not in _WORDS:
            raise ValueError(f"`{text}` is neither true nor false")
        return _WORDS[text.lower()]
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            raise ValueError(f"`{text}` is not a number") from None
    return from_yaml(hint, text)


def from_yaml(hint: Any, value: Any) -> Any:
    """Returns the value that a parsed YAML scalar, list or mapping stands for.

    Raises:
        ValueError: it does not fit; the message is for a person.
    """
    hint = _without_none(hint)
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError("must be a list")
        item = typing.get_args(hint)[0]
        return tuple(from_yaml(item, part) for part in value)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise ValueError("must be a mapping")
        item = typing.get_args(hint)[1]
        return {key: from_yaml(item, part) for key, part in value.items()}
    return _scalar(hint, value)


def _scalar(hint: Any, value: Any) -> Any:
    if hint in (Seconds, ByteCount):
        if not isinstance(value, str):
            raise ValueError("needs a unit: " + ("30s" if hint == Seconds else "64MiB"))
        return parse_duration(value) if hint == Seconds else parse_size(value)
    if hint in (bool, int, float):
        # To Python, true is a number; to a person it is not.
        if isinstance(value, bool) is not (hint is bool) or not isinstance(value, hint | int):
            raise ValueError("must be true or false" if hint is bool else "must be a number")
        return hint(value)
    if not isinstance(value, str):
        raise ValueError("must be a text")  # noqa: TRY004  # the one error that `load` gathers
    return _from_word(hint, value)


def _from_word(hint: Any, text: str) -> Any:
    if hint is Path:
        if not text:
            raise ValueError("must not be empty")
        return Path(text).expanduser().absolute()
    if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
        if text not in {str(member) for member in hint}:
            raise ValueError(f"`{text}` is not one of " + ", ".join(hint))
        return hint(text)
    if hint is not str:
        raise TypeError(f"settings cannot hold {hint!r}")
    return text


def plain(value: Any, hint: Any = None) -> Any:
    """Returns `value` as YAML writes it: the inverse of `from_yaml`."""
    hint = _without_none(hint)
    if isinstance(value, tuple):
        item = typing.get_args(hint)[0] if typing.get_origin(hint) is tuple else None
        return [plain(part, item) for part in value]
    if isinstance(value, Mapping):
        item = typing.get_args(hint)[1] if typing.get_args(hint) else None
        return {key: plain(part, item) for key, part in value.items()}
    if value is not None and hint in (Seconds, ByteCount):
        return format_duration(value) if hint == Seconds else format_size(value)
    return str(value) if isinstance(value, Path | enum.StrEnum) else value


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return next(a for a in typing.get_args(hint) if a is not types.NoneType)
    return hint
