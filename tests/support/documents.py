"""Documents of artifacts for tests: valid, small, and easily made wrong."""

from typing import Any

from services.core.artifacts.families import API_VERSION, Family


def document(family: Family, name: str, spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Returns a document with its envelope; `more` are further members of it."""
    return {
        "apiVersion": API_VERSION,
        "kind": family.kind,
        "metadata": {"name": name},
        "spec": spec,
        **more,
    }
