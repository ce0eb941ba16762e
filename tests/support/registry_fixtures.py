"""pytest fixtures over `tests.support.registry`; a tier's conftest imports those that it offers.

One container of a variant serves the whole session; tests stay apart by repositories of their own
(`registry.new_repository()`).
"""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from tests.support import registry as registries
from tests.support.prerequisites import Prerequisite, missing

Variant = Callable[[], contextlib.AbstractContextManager[registries.RunningRegistry]]


def _run(variant: Variant) -> Iterator[registries.RunningRegistry]:
    with contextlib.ExitStack() as stack:
        try:
            registries.remove_orphans()
            running = stack.enter_context(variant())
        except registries.RegistryUnavailable as error:
            missing(Prerequisite.REGISTRY, str(error))
        yield running


@pytest.fixture(scope="session")
def registry() -> Iterator[registries.RunningRegistry]:
    """`registry:2` as published, or the one that `LNS_TEST_REGISTRY` names."""
    external = registries.external_registry()
    if external is not None:
        yield external
        return
    yield from _run(registries.run_registry)


@pytest.fixture(scope="session")
def deletable_registry() -> Iterator[registries.RunningRegistry]:
    """A registry that accepts DELETE."""
    yield from _run(registries.run_deletable_registry)


@pytest.fixture(scope="session")
def basic_registry() -> Iterator[registries.RunningRegistry]:
    """A registry with Basic authentication."""
    yield from _run(registries.run_basic_registry)


@pytest.fixture(scope="session")
def token_registry() -> Iterator[registries.RunningRegistry]:
    """A registry with token authentication, and its token server."""
    yield from _run(registries.run_token_registry)


@pytest.fixture(scope="session")
def tls_registry() -> Iterator[registries.RunningRegistry]:
    """A registry behind TLS with a private CA."""
    yield from _run(registries.run_tls_registry)
