"""The schemas that ship with lns: JSON Schema 2020-12, one file a family.

`common.json` has what several of them share; `policy-file.json` is for `lns-policy.yaml`,
`lock-file.json` for `lns.lock` and `integrations-file.json` for `.lns-integrations.yaml`.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from importlib import resources
from typing import Any, Final

from services.core.artifacts.bounded_validator import SchemaValidator
from services.core.artifacts.families import Family

_SHARED: Final = "common"


def schema_json(family: Family) -> str:
    """Returns a family's schema as indented JSON that stands alone.

    The shared parts are embedded under `$defs.common`, where their `$id` lets the references of
    the family's own file find them (JSON Schema 2020-12, section 9.3).
    """
    schema = deepcopy(dict(_load(family.slug)))
    schema["$defs"] = {_SHARED: _load(_SHARED), **schema.get("$defs", {})}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


@cache
def validator_of(family: Family) -> SchemaValidator:
    """Returns the validator of a family's schema; made once."""
    return SchemaValidator(_load(family.slug), shared=[_load(_SHARED)])


@cache
def policy_file_validator() -> SchemaValidator:
    """Returns the validator of `lns-policy.yaml`; made once."""
    return SchemaValidator(_load("policy-file"), shared=[_load(_SHARED)])


@cache
def lock_file_validator() -> SchemaValidator:
    """Returns the validator of `lns.lock`; made once."""
    return SchemaValidator(_load("lock-file"), shared=[_load(_SHARED)])


@cache
def integrations_file_validator() -> SchemaValidator:
    """Returns the validator of `.lns-integrations.yaml`; made once."""
    return SchemaValidator(
        _load("integrations-file"), shared=[_load(_SHARED), _load("integration")]
    )


@cache
def envelope_validator_of(family: Family) -> SchemaValidator:
    """Returns a validator of the envelope alone, for specs that another schema decides on."""
    parts = f"{_SHARED}.json#/$defs/"
    properties: dict[str, Any] = {
        "apiVersion": {"$ref": f"{parts}apiVersion"},
        "kind": {"const": family.kind},
        "metadata": {"$ref": f"{parts}metadata"},
        "spec": {"type": "object"},
    }
    if family.is_mountable:
        properties["mount"] = {"$ref": f"{parts}mount"}
    schema = {
        "$id": _load(_SHARED)["$id"].replace(_SHARED, "envelope"),
        "type": "object",
        "properties": properties,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
    }
    return SchemaValidator(schema, shared=[_load(_SHARED)])


@cache
def _load(name: str) -> Mapping[str, Any]:
    text = resources.files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
