"""Schema errors as violations that a person can act upon, each at its JSON path."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, Final

from jsonschema import ValidationError
from jsonschema.exceptions import best_match

from services.core.errors import Violation

SCHEMA: Final = "SCHEMA"
"""Type of a violation of a schema."""

SYNTAX: Final = "SYNTAX"
"""Type of a violation of JSON or YAML."""

RULE: Final = "RULE"
"""Type of a violation that no schema can express."""

_MAX_TEXT: Final = 300
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_NOUNS: Final = {
    "object": "an object",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "null",
}


def json_path(path: Iterable[str | int]) -> str:
    """Returns a path such as `$.spec.ports[0].host`; names that are no words are quoted."""
    text = "$"
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN.match(part):
            text += f".{part[:80]}"
        else:
            text += f"[{part[:80]!r}]"
    return text[:_MAX_TEXT]


def to_violations(errors: Sequence[ValidationError]) -> tuple[Violation, ...]:
    """Returns one violation for each error, sorted by path, without repetitions."""
    found = {(json_path(one.absolute_path), _describe(one)) for one in map(_most_telling, errors)}
    return tuple(
        Violation(subject=path, description=text, type=SCHEMA) for path, text in sorted(found)
    )


def _most_telling(error: ValidationError) -> ValidationError:
    """Follows `anyOf` and `oneOf` to the error of the alternative that was probably meant."""
    if error.context and not _is_choice_of_fields(error):
        return best_match([error]) or error
    return error


def _describe(error: ValidationError) -> str:
    return _sentence(error)[:_MAX_TEXT]


def _sentence(error: ValidationError) -> str:  # noqa: PLR0911, PLR0912 - a table, one line a keyword
    keyword, value, instance = error.validator, error.validator_value, error.instance
    match keyword:
        case "required":
            return "is required"
        case "additionalProperties" if value is False:
            return _unknown_field(error)
        case "type":
            wanted = " or ".join(_NOUNS.get(one, one) for one in _names(value))
            return f"must be {wanted}, not {_noun_of(instance)}"
        case "const":
            return f"must be {value!r}, not {instance!r}"
        case "enum":
            return f"must be one of {', '.join(map(str, _names(value)))}, not {instance!r}"
        case "pattern" | "not" if _description(error):
            return f"{instance!r} does not fit: {_description(error)}"
        case "not" if isinstance(value, dict) and "required" in value:
            return f"must not have {', '.join(_names(value['required']))}"
        case "oneOf" | "anyOf" if _is_choice_of_fields(error):
            choice = " or ".join(name for one in _names(value) for name in one["required"])
            return f"needs either {choice}"
        case "minLength" | "minItems" | "minProperties":
            return "must not be empty" if value == 1 else f"needs at least {value}"
        case "maxLength" | "maxItems" | "maxProperties":
            unit = {"maxLength": "characters", "maxItems": "entries"}.get(str(keyword), "fields")
            return f"has more than {value} {unit}"
        case "minimum" | "exclusiveMinimum" | "maximum" | "exclusiveMaximum":
            relation = {"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "above"}
            return f"must be {relation.get(keyword, 'below')} {value}, not {instance!r}"
        case None:
            return "is not allowed"
        case _:
            return error.message


def _unknown_field(error: ValidationError) -> str:
    name = str(error.path[-1]) if error.path else ""
    known = sorted(error.schema.get("properties", {})) if isinstance(error.schema, dict) else []
    if name == "mount" and "spec" in known:
        return "only model, tool, knowledge and fileset artifacts are mounted"
    close = get_close_matches(name[:80], known, n=1)
    if close:
        return f"is not a field; did you mean {close[0]}?"
    return f"is not a field; the fields are {', '.join(known)}" if known else "is not a field"


def _is_choice_of_fields(error: ValidationError) -> bool:
    return error.validator in ("oneOf", "anyOf") and all(
        isinstance(one, dict) and set(one) == {"required"} for one in _names(error.validator_value)
    )


def _description(error: ValidationError) -> str:
    text = error.schema.get("description") if isinstance(error.schema, dict) else None
    return text if isinstance(text, str) else ""


def _names(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _noun_of(instance: object) -> str:
    match instance:
        case bool():
            return "true" if instance else "false"
        case None:
            return "null"
        case int() | float():
            return f"the number {instance}"
        case str():
            return f"the text {instance!r}"
        case list():
            return "a list"
        case _:
            return "an object"
