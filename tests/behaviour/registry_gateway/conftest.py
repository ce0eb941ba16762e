"""A gateway that is served over fakes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.support.gateway_world import World, running, served


@pytest_asyncio.fixture
async def world(short_directory: Path) -> AsyncIterator[World]:
    async with served(short_directory) as made, running(made):
        yield made
