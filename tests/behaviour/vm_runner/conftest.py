from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.vm_service import VmClient, VmWorld, vm_service, vm_world


@pytest.fixture
async def world(short_directory: Path) -> AsyncIterator[VmWorld]:
    async with vm_world(short_directory) as world:
        yield world


@pytest.fixture
async def vm(world: VmWorld) -> AsyncIterator[VmClient]:
    async with vm_service(world) as client:
        yield client
