"""`.lnsignore`: which entries of a tree are not packed, in the notation of gitignore.

As in git: a pattern with a `/` before its end is anchored at the root, one without matches at any
depth; `*`, `?` and `[…]` stay in one segment, `**` spans them; a trailing `/` matches directories
only; `!` takes back; the last pattern that matches decides; below an ignored directory nothing can
be taken back.
"""

import re
from dataclasses import dataclass
from typing import Final, Self

from services.core.errors import RequestInvalid

IGNORE_FILE: Final = ".lnsignore"

_CLASS_NAMES: Final = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "digit": "0-9",
    "lower": "a-z",
    "upper": "A-Z",
    "space": r"\s",
    "punct": r"!-/:-@\[-`{-~",
    "xdigit": "0-9A-Fa-f",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    matcher: re.Pattern[str]
    is_negated: bool
    directories_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoreRules:
    """The rules of one file, in order."""

    rules: tuple[_Rule, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parses the text of a `.lnsignore` file.

        Raises:
            RequestInvalid: a pattern cannot be understood; the message names its line.
        """
        rules = []
        for number, line in enumerate(text.splitlines(), start=1):
            pattern = _strip(line)
            if not pattern or pattern.startswith("#"):
                continue
            try:
                rules.append(_parse_rule(pattern))
            except re.error as error:
                raise RequestInvalid(
                    f"line {number} of {IGNORE_FILE} is not a pattern: {error}"
                ) from error
        return cls(rules=tuple(rules))

    def ignores(self, path: str, *, is_directory: bool) -> bool:
        """Says whether the rules leave an entry out; the caller does not enter what is left out."""
        if path == IGNORE_FILE:
            return True
        for rule in reversed(self.rules):
            if (is_directory or not rule.directories_only) and rule.matcher.fullmatch(path):
                return not rule.is_negated
        return False


def _strip(line: str) -> str:
    """Removes trailing spaces that no backslash protects."""
    stripped = line.rstrip(" ")
    backslashes = len(stripped) - len(stripped.rstrip("\\"))
    return stripped + " " if backslashes % 2 and stripped != line else stripped


def _parse_rule(pattern: str) -> _Rule:
    is_negated = pattern.startswith("!")
    body = pattern[1:] if is_negated else pattern
    directories_only = body.endswith("/")
    body = body[:-1] if directories_only else body
    anchored = "/" in body
    prefix = "" if anchored else "(?:.*/)?"
    expression = prefix + _translate(body.removeprefix("/"))
    return _Rule(
        matcher=re.compile(expression, re.DOTALL),
        is_negated=is_negated,
        directories_only=directories_only,
    )


def _translate(pattern: str) -> str:
    if pattern == "**":
        return ".+"
    result = []
    position = 0
    while position < len(pattern):
        if pattern.startswith("**/", position) and _starts_segment(pattern, position):
            result.append("(?:.*/)?")
            position += 3
        elif pattern[position:] == "**" and _starts_segment(pattern, position):
            result.append(".+")
            position += 2
        else:
            piece, position = _translate_one(pattern, position)
            result.append(piece)
    return "".join(result)


def _starts_segment(pattern: str, position: int) -> bool:
    return position == 0 or pattern[position - 1] == "/"


def _translate_one(pattern: str, position: int) -> tuple[str, int]:
    character = pattern[position]
    if character == "*":
        while pattern[position : position + 1] == "*":
            position += 1
        return "[^/]*", position
    if character == "?":
        return "[^/]", position + 1
    if character == "[":
        return _translate_class(pattern, position)
    if character == "\\" and position + 1 < len(pattern):
        return re.escape(pattern[position + 1]), position + 2
    return re.escape(character), position + 1


def _translate_class(pattern: str, position: int) -> tuple[str, int]:
    index = position + 1
    negation = ""
    if pattern[index : index + 1] in ("!", "^"):
        negation, index = "^", index + 1
    members = []
    first = index
    while index < len(pattern) and (pattern[index] != "]" or index == first):
        named = re.match(r"\[:([a-z]+):\]", pattern[index:])
        if named and named[1] in _CLASS_NAMES:
            members.append(_CLASS_NAMES[named[1]])
            index += named.end()
            continue
        if pattern[index] == "\\" and index + 1 < len(pattern):
            index += 1
            members.append("\\" + pattern[index])
        elif pattern[index] == "-":
            members.append("-")
        else:
            members.append(re.escape(pattern[index]))
        index += 1
    if index >= len(pattern):
        return re.escape("["), position + 1
    return f"(?!/)[{negation}{''.join(members)}]", index + 1
