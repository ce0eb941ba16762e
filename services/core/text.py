"""Text from strangers, made harmless for terminals."""

import json
import re
import unicodedata
from typing import Any

_ODD = re.compile(r"[^ -~]")


def printable(text: str, *, keep: str = "") -> str:
    """Returns `text` with every character that could steer a terminal written as an escape.

    Control characters (C0 and C1), and format characters that reorder text, come from registries,
    artifacts and guests, and would let a name rewrite the line it stands in. Those in `keep` stay
    as they are.
    """
    return _ODD.sub(lambda match: _shown(match[0], keep), text)


def printable_json(text: str) -> str:
    """Returns a JSON text that means the same, in which no character could steer a terminal."""
    return _ODD.sub(lambda match: _shown(match[0], "\n", json=True), text)


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Returns a value as JSON for users and programs: readable, and harmless for terminals."""
    return printable_json(json.dumps(value, ensure_ascii=False, indent=indent))


def _shown(character: str, keep: str, *, json: bool = False) -> str:
    if character.isprintable() or character in keep:
        return character
    if unicodedata.category(character) == "Zs":  # other spaces than U+0020 are not harmful
        return character
    if not json:
        return character.encode("unicode_escape", "backslashreplace").decode("ascii")
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
