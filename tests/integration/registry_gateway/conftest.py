"""A gateway of its own for each test, against registries that the session shares."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.fault_proxy import FaultProxy
from tests.support.gateway import RunningGateway, run_gateway
from tests.support.registry import RunningRegistry


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
