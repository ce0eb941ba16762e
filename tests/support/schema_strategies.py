"""Documents that fit a JSON Schema, for hypothesis: only the keywords that the families use."""

import json
import re
from importlib import resources
from typing import Any

from hypothesis import strategies as st

from services.core.artifacts.families import Family

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)


def documents(family: Family, **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Documents that are probably valid; `fixed` gives the strategies of named members.

    What a schema says of combinations of members (`if`, `oneOf`) is left to chance.
    """
    return _of(_load(family.slug), fixed)


def _load(name: str) -> dict[str, Any]:
    text = resources.files("services.core.artifacts.schemas").joinpath(f"{name}.json").read_text()
    loaded: dict[str, Any] = json.loads(text)
    return loaded


_COMMON = _load("common")["$defs"]


def _of(schema: dict[str, Any], fixed: dict[str, Any], own: Any = None) -> st.SearchStrategy[Any]:
    own = schema.get("$defs", own)
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        target = (own or {}).get(name) if schema["$ref"].startswith("#") else None
        return _of(
            {**(target or _COMMON[name]), **{k: v for k, v in schema.items() if k != "$ref"}},
            fixed,
            own,
        )
    if "const" in schema:
        return st.just(schema["const"])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    types = schema.get("type", [])
    kinds = types if isinstance(types, list) else [types]
    return st.one_of([_of_type(kind, schema, fixed, own) for kind in kinds] or [_JSON])


def _of_type(kind: str, schema: dict[str, Any], fixed: dict[str, Any], own: Any) -> Any:
    match kind:
        case "object":
            return _object(schema, fixed, own)
        case "array":
            items = _of(schema["items"], fixed, own)
            return st.lists(items, min_size=schema.get("minItems", 0), max_size=2)
        case "string":
            return _string(schema)
        case "boolean":
            return st.booleans()
        case "integer":
            low = schema.get("minimum", 0)
            return st.integers(low, min(schema.get("maximum", 70_000), low + 70_000))
        case _:
            return st.floats(0.001, 4096, allow_nan=False) | st.integers(1, 4096)


def _object(schema: dict[str, Any], fixed: dict[str, Any], own: Any) -> Any:
    members = {
        name: fixed[name] if name in fixed else _of(one, fixed, own)
        for name, one in schema.get("properties", {}).items()
    }
    if not members:
        more = schema.get("additionalProperties", True)
        values = _of(more, fixed, own) if isinstance(more, dict) else _JSON
        names = _string({"minLength": 1, "maxLength": 5, **schema.get("propertyNames", {})})
        return st.dictionaries(names, values, max_size=2)
    required = set(schema.get("required", ()))
    return st.fixed_dictionaries(
        {name: one for name, one in members.items() if name in required},
        optional={name: one for name, one in members.items() if name not in required},
    )


def _string(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    if "$ref" in schema:
        schema = _COMMON[schema["$ref"].rpartition("/")[2]]
    low, limit = schema.get("minLength", 0), schema.get("maxLength", 80)
    if "pattern" in schema:
        # `$` of Python also matches before a final line break, that of JSON Schema does not.
        pattern = re.sub(r"\$$", r"\\Z", schema["pattern"])
        matching = st.from_regex(pattern, alphabet=st.characters(codec="ascii"))
        return matching.filter(lambda text: low <= len(text) <= limit)
    return st.text(min_size=low, max_size=min(limit, low + 20))
