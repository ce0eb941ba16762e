from collections.abc import AsyncIterator

import pytest

from tests.support.egress_world import EgressWorld, egress_world
from tests.support.http1_world import Origin


@pytest.fixture
async def world() -> AsyncIterator[EgressWorld]:
    async with egress_world() as world:
        yield world


@pytest.fixture
def origin() -> Origin:
    return Origin()
