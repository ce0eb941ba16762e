"""YAML as a notation for JSON: one document, YAML 1.2's core schema, every bound kept.

Hostile or surprising parts of YAML are refused with their line: aliases (they multiply), tags,
several documents, keys that are not text or occur twice. Plain scalars follow the core schema of
YAML 1.2 (section 10.3.2): `yes` and `2024-01-01` are text, `0o17` is fifteen.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,400}\Z")
_OCTAL = re.compile(r"0o[0-7]{1,400}\Z")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,400}\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,400}|[0-9]{1,400}(\.[0-9]{0,400})?)([eE][-+]?[0-9]{1,9})?\Z")


class YamlError(ValueError):
    """The text is not YAML, or holds a part of it that is refused; the message has the line."""


def read_yaml(text: str, *, max_depth: int, max_nodes: int) -> object:
    """Returns the one document of a YAML text as the types of JSON.

    Raises:
        YamlError: it is not YAML, more than one document, nested deeper than `max_depth`, has more
            than `max_nodes` nodes, or uses what this reader refuses.
    """
    try:
        return _read(yaml.parse(text, Loader=_Loader), max_depth, max_nodes)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise YamlError(f"{_place(mark)}{error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(
            f"line {line}: character #x{error.character:04x} is not accepted"
        ) from error


class _Open:
    """A collection that is being read."""

    __slots__ = ("key", "value")

    def __init__(self, value: "dict[str, object] | list[object]") -> None:
        self.value = value
        self.key: str | None = None


def _read(events: Iterator[Any], max_depth: int, max_nodes: int) -> object:
    stack: list[_Open] = []
    documents = 0
    nodes = 0
    result: object = None
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _error(event, "only one document is accepted")
        if isinstance(event, yaml.AliasEvent):
            raise _error(event, "aliases (*name) are not accepted; write the value out")
        if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            stack.pop()
        if not isinstance(event, yaml.NodeEvent):
            continue
        nodes += 1
        if nodes > max_nodes:
            raise _error(event, f"it has more than {max_nodes} values")
        value = _value(event)
        if not stack:
            result = value
        else:
            _put(stack[-1], value, event)
        if isinstance(value, dict | list):
            if len(stack) >= max_depth:
                raise _error(event, f"it is nested deeper than {max_depth} levels")
            stack.append(_Open(value))
    return result


def _put(parent: _Open, value: object, event: Any) -> None:
    if isinstance(parent.value, list):
        parent.value.append(value)
    elif parent.key is None:
        if not isinstance(value, str):
            raise _error(event, "a key must be text; quote it")
        if value in parent.value:
            raise _error(event, f"the key {value[:80]!r} occurs twice")
        parent.key = value
    else:
        parent.value[parent.key] = value
        parent.key = None


def _value(event: Any) -> object:
    if isinstance(event, yaml.MappingStartEvent):
        if event.tag not in (None, "!", "tag:yaml.org,2002:map"):
            raise _error(event, f"the tag {event.tag[:80]!r} is not accepted")
        return {}
    if isinstance(event, yaml.SequenceStartEvent):
        if event.tag not in (None, "!", "tag:yaml.org,2002:seq"):
            raise _error(event, f"the tag {event.tag[:80]!r} is not accepted")
        return []
    if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
        raise _error(event, f"the tag {event.tag[:80]!r} is not accepted")
    plain = event.style in (None, "") and event.tag is None
    return _plain_scalar(event.value) if plain else event.value


def _plain_scalar(text: str) -> object:
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.match(text):
        return int(text)
    if _OCTAL.match(text) or _HEXADECIMAL.match(text):
        return int(text, 0)
    if _FLOAT.match(text):
        return float(text)
    return text


def _error(event: Any, problem: str) -> YamlError:
    return YamlError(f"{_place(event.start_mark)}{problem}")


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
