import json
from importlib import resources
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from services.core.artifacts import schemas
from services.core.artifacts.documents import parse_document
from services.core.artifacts.families import FAMILIES, SLUGS, Family
from services.core.artifacts.starters import starter

FILES = sorted(
    entry.name
    for entry in resources.files("services.core.artifacts.schemas").iterdir()
    if entry.name.endswith(".json")
)


def load(name: str) -> dict[str, Any]:
    text = resources.files("services.core.artifacts.schemas").joinpath(name).read_text()
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def test_there_is_one_file_a_family_and_four_more() -> None:
    more = ["common", "integrations-file", "policy-file", "lock-file"]

    assert sorted(f"{name}.json" for name in [*SLUGS, *more]) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_schema_is_valid_and_says_which_it_is(name: str) -> None:
    schema = load(name)

    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"https://lens.dev/schemas/v1alpha1/{name}"


@pytest.mark.parametrize("name", FILES)
def test_every_member_of_a_schema_is_described(name: str) -> None:
    bare = []

    def visit(value: Any, path: str) -> None:
        if isinstance(value, dict):
            for member, schema in value.get("properties", {}).items():
                if (
                    isinstance(schema, dict)
                    and not {"description", "$ref", "const"} & schema.keys()
                ):
                    bare.append(f"{path}.{member}")
            for key, inner in value.items():
                visit(inner, f"{path}.{key}")
        elif isinstance(value, list):
            for inner in value:
                visit(inner, path)

    visit(load(name), name)

    assert bare == []


@pytest.mark.parametrize("name", FILES)
def test_every_object_of_a_schema_refuses_unknown_fields(name: str) -> None:
    open_ended = []

    def visit(value: Any, path: str) -> None:
        if isinstance(value, dict):
            if value.get("type") == "object" and "additionalProperties" not in value:
                open_ended.append(path)
            for key, inner in value.items():
                visit(inner, f"{path}.{key}")
        elif isinstance(value, list):
            for inner in value:
                visit(inner, path)

    visit(load(name), name)

    # What a model's parameters and a workflow's steps hold is between agents.
    assert open_ended == {
        "model.json": ["model.json.properties.spec.properties.parameters"],
        "workflow.json": ["workflow.json.properties.spec.properties.steps.items"],
    }.get(name, [])


@pytest.mark.parametrize("family", FAMILIES, ids=SLUGS)
def test_a_printed_schema_stands_alone(family: Family) -> None:
    printed = json.loads(schemas.schema_json(family))
    validator = Draft202012Validator(printed)

    assert list(validator.iter_errors(parse_document(starter(family).encode()))) == []
    assert list(validator.iter_errors({"metadata": {"name": "Not A Label"}}))


@pytest.mark.parametrize("family", FAMILIES, ids=SLUGS)
def test_a_starter_fits_its_schema_and_is_commented(family: Family) -> None:
    text = starter(family)

    assert schemas.validator_of(family).errors(parse_document(text.encode())) == []
    assert text.startswith("# ")
    assert f"{family.path_segment}/" in text
