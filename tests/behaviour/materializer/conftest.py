"""A served materializer with an empty store."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.materializer import Client, served


@pytest.fixture
async def client(short_directory: Path) -> AsyncIterator[Client]:
    """A materializer's stub with its store."""
    async with served(short_directory) as client:
        yield client
