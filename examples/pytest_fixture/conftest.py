"""A fixture for tests of software that needs a machine of its own.

LNS_TEST_IMAGE=localhost:5000/images/python:1 pytest examples/pytest_fixture
"""

import os
from collections.abc import Iterator

import pytest

from lns.client import SyncClient, SyncRun


@pytest.fixture(scope="session")
def lns() -> Iterator[SyncClient]:
    """One connection for all tests."""
    with SyncClient() as client:
        yield client


@pytest.fixture
def lns_run(lns: SyncClient) -> Iterator[SyncRun]:
    """A microVM of the test's own, removed when the test ends, however it ends."""
    image = os.environ["LNS_TEST_IMAGE"]
    with lns.run(image, "sleep", "infinity", memory=256) as run:
        yield run
