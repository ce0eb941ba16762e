"""Rules of documents that no schema expresses: what references, quantities and lists must be."""

from collections.abc import Iterator, Mapping
from typing import Any

from services.core.artifacts.families import AGENT, BUNDLE, POLICY, SANDBOX, TOOL, Family
from services.core.errors import LnsError
from services.core.reference import Reference

Path = tuple[str | int, ...]


def rule_problems(family: Family, document: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Yields path and description of each problem of a document that fits its schema.

    A member that a registry's own schema let pass in another shape is left to its reader.
    """
    spec = document["spec"]
    for path, reference in _references(family, spec):
        try:
            Reference.parse(reference)
        except LnsError as error:
            yield ("spec", *path), error.message


def _references(family: Family, spec: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    if family is AGENT:
        yield from _text(spec, "image")
    elif family is SANDBOX:
        yield from _text(spec, "baseImage")
    elif family is TOOL:
        yield from _refs(spec, "requiredIntegrations")
    elif family is POLICY:
        yield from _refs(spec, "integrations")
    elif family is BUNDLE:
        components: dict[str, Any] = spec["components"]
        for name in components:
            for path, reference in _refs(components, name):
                yield ("components", *path), reference


def _text(parent: dict[str, Any], name: str) -> Iterator[tuple[Path, str]]:
    if isinstance(parent.get(name), str):
        yield (name,), parent[name]


def _refs(parent: dict[str, Any], name: str) -> Iterator[tuple[Path, str]]:
    value = parent.get(name)
    if isinstance(value, list):
        for index, element in enumerate(value):
            if isinstance(element, dict):
                for path, reference in _text(element, "ref"):
                    yield (name, index, *path), reference
    elif isinstance(value, dict):
        for path, reference in _text(value, "ref"):
            yield (name, *path), reference
