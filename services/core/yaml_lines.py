"""Items of a YAML block list, added and removed as lines, so that every comment stays in its place.

A comment above an item belongs to the item: that is how files are written. (ruamel.yaml gives it to
the item before, and would move or lose it.)
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./,()+ -]*(?<! )")
_WORDS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockList:
    """Where the items of a block list are: the column of their dashes, the line each begins on."""

    column: int
    lines: tuple[int, ...]


def insert_item(
    text: str, where: BlockList, position: int, item: Mapping[str, Any], *, comment: str = ""
) -> str:
    """Returns the text with one more item, before the comments of the one at `position`."""
    lines = text.splitlines(keepends=True)
    if position < len(where.lines):
        at = _with_comments(lines, where.lines[position], where.column)
    else:
        at = _end(lines, where.lines[-1], where.column)
    newline = "\r\n" if text.count("\r\n") else "\n"
    if at and not lines[at - 1].endswith("\n"):
        lines[at - 1] += newline
    new = [f"# {comment}"] if comment else []
    new += _item(item)
    pad = " " * where.column
    return "".join([*lines[:at], *(f"{pad}{line}{newline}" for line in new), *lines[at:]])


def remove_item(text: str, where: BlockList, position: int) -> str:
    """Returns the text without an item and the comments directly above it."""
    lines = text.splitlines(keepends=True)
    begin = _with_comments(lines, where.lines[position], where.column)
    end = _end(lines, where.lines[position], where.column)
    return "".join([*lines[:begin], *lines[end:]])


def _with_comments(lines: Sequence[str], line: int, column: int) -> int:
    """Returns the first line of the comments that stand directly above an item."""
    while line > 0 and lines[line - 1].lstrip(" ").startswith("#"):
        if _column(lines[line - 1]) != column:
            break
        line -= 1
    return line


def _end(lines: Sequence[str], line: int, column: int) -> int:
    """Returns the line behind the last one of an item."""
    end = line + 1
    for number in range(line + 1, len(lines)):
        content = lines[number].strip()
        if not content or content.startswith("#"):
            continue
        if _column(lines[number]) <= column:
            break
        end = number + 1
    return end


def _column(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _item(item: Mapping[str, Any]) -> list[str]:
    """Returns the lines of a mapping as an item: scalars, and lists of flat mappings."""
    lines: list[str] = []
    for key, value in item.items():
        if isinstance(value, list):
            lines += [f"{key}:", *(f"  - {_flow(one)}" for one in value)]
        else:
            lines.append(f"{key}: {_scalar(value)}")
    return [("  " if number else "- ") + line for number, line in enumerate(lines)]


def _flow(mapping: Mapping[str, str]) -> str:
    inner = ", ".join(f"{key}: {_scalar(value, flow=True)}" for key, value in mapping.items())
    return f"{{{inner}}}"


def _scalar(value: str, *, flow: bool = False) -> str:
    is_plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    if is_plain and not (flow and "," in value):
        return value
    if flow and re.fullmatch(r"/[A-Za-z0-9_./*-]*", value):
        return value  # a path with wildcards
    return _quoted(value)


def _quoted(value: str) -> str:
    """Returns a double-quoted scalar (YAML 1.2, section 5.7)."""
    escapes = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(escapes.get(one) or _character(one) for one in value) + '"'


def _character(one: str) -> str:
    return one if one.isprintable() else f"\\U{ord(one):08x}"
