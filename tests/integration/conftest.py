"""What every integration test may ask for: real registries."""

import pytest

from tests.support.registry_fixtures import (
    basic_registry,
    deletable_registry,
    registry,
    tls_registry,
    token_registry,
)

__all__ = [
    "basic_registry",
    "deletable_registry",
    "registry",
    "tls_registry",
    "token_registry",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is an integration test, marked or not."""
    for item in items:
        if "tests/integration/" in item.nodeid:
            item.add_marker(pytest.mark.integration)
