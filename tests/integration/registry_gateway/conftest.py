"""A gateway of its own for each test, against registries that the session shares."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.fault_proxy import FaultProxy
from tests.support.gateway import RunningGateway, run_gateway
from tests.support.images import Built, build_image, build_index, upload
from tests.support.registry import RunningRegistry
from tests.support.registry_images import fresh, new_path


@pytest_asyncio.fixture
async def gateway(short_directory: Path) -> AsyncIterator[RunningGateway]:
    """A gateway with an empty store."""
    async with run_gateway(short_directory, stall_timeout=5.0) as running:
        yield running


@pytest.fixture
def proxy(registry: RunningRegistry) -> Iterator[FaultProxy]:
    """A proxy before the registry that breaks what a test tells it to."""
    with FaultProxy(registry.host) as running:
        yield running


@pytest.fixture
def image(registry: RunningRegistry) -> tuple[Built, str]:
    """An image in the registry and its reference."""
    built = build_image(fresh(200_000), fresh(), indent=2)
    return built, f"{registry.host}/{upload(registry.url, new_path(registry), built, 'v1')}"


@pytest.fixture
def multi(registry: RunningRegistry) -> tuple[Built, str]:
    """An index of two platforms in the registry and its reference."""
    shared = fresh(100_000)
    built = build_index(
        ("amd64", build_image(shared, fresh())),
        ("arm64", build_image(shared, fresh(), architecture="arm64")),
    )
    return built, f"{registry.host}/{upload(registry.url, new_path(registry), built, 'v1')}"
