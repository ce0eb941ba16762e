import pytest

from tests.support.shelf import Shelf


@pytest.fixture
def shelf() -> Shelf:
    """A registry in memory with an image on it."""
    return Shelf()
