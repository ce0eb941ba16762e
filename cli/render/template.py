r"""Docker's `--format` templates, as far as one line uses them.

    {{.ID}}\t{{.Name}}          fields; upper and lower case and `_` make no difference
    {{json .}}  {{json .Ports}}  as JSON
    {{upper .State}}  {{lower .State}}

A row is a mapping; a path goes into mappings below it. Anything else is refused with the names that
there are.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from services.core.errors import RequestInvalid
from services.core.text import to_json

Row = Mapping[str, Any]

_ACTION = re.compile(r"\{\{\s*(?:([A-Za-z]+)\s+)?\.([A-Za-z0-9_.]*)\s*\}\}")
_FUNCTIONS: Mapping[str, Callable[[Any], str]] = {
    "json": to_json,
    "upper": lambda value: plain(value).upper(),
    "lower": lambda value: plain(value).lower(),
}


def render_template(template: str, row: Row) -> str:
    r"""Returns `template` with its actions replaced by values of `row`, and `\t` and `\n` read.

    Raises:
        RequestInvalid: an action, function or field that does not exist.
    """
    text = template.replace("\\t", "\t").replace("\\n", "\n")
    parts: list[str] = []
    position = 0
    for match in _ACTION.finditer(text):
        parts.append(_literal(text[position : match.start()]))
        parts.append(_value(match[1], match[2], row))
        position = match.end()
    parts.append(_literal(text[position:]))
    return "".join(parts)


def template_fields(template: str) -> list[str]:
    """Returns the paths that a template names, in order: the columns of `table …`."""
    return [match[2] for match in _ACTION.finditer(template)]


def plain(value: Any) -> str:
    """Returns a value of a row as a cell: lists with commas, truth as `true`, None empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(item) for item in value)
    if isinstance(value, Mapping):
        return ",".join(f"{key}={plain(item)}" for key, item in value.items())
    return str(value)


def _literal(text: str) -> str:
    if "{{" in text:
        action = text[text.index("{{") :].split("}}", maxsplit=1)[0] + "}}"
        raise RequestInvalid(
            f"the template has {action!r}, which is not supported",
            hint="use {{.Field}}, {{json .}}, {{upper .Field}} or {{lower .Field}}",
        )
    return text


def _value(function: str | None, path: str, row: Row) -> str:
    value: Any = row
    for name in path.split(".") if path else ():
        value = _field(value, name, path)
    if function is None:
        return plain(value)
    if function not in _FUNCTIONS:
        raise RequestInvalid(
            f"the template has no function {function!r}",
            hint="the functions are json, lower, upper",
        )
    return _FUNCTIONS[function](value)


def _field(value: Any, name: str, path: str) -> Any:
    if isinstance(value, Mapping):
        wanted = _canonical(name)
        for key, item in value.items():
            if _canonical(key) == wanted:
                return item
    hint = "this value is plain and has no fields"
    if isinstance(value, Mapping):
        hint = f"the fields are {', '.join(sorted(value))}"
    raise RequestInvalid(f"the field {path!r} does not exist", hint=hint)


def _canonical(name: str) -> str:
    return name.replace("_", "").lower()
