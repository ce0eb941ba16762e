"""Contents and repositories that nobody else has, for images in registries."""

import time

from tests.support.images import Built, random_bytes
from tests.support.registry import RunningRegistry


def fresh(size: int = 1000) -> bytes:
    """Returns bytes that no test had before."""
    return random_bytes(size, time.time_ns())


def new_path(registry: RunningRegistry) -> str:
    """Returns the path of a repository of its own."""
    return registry.new_repository().partition("/")[2]


def platform_manifest(index: Built, architecture: str) -> Built:
    """Returns the image for an architecture in an index of amd64 and arm64."""
    return index.children[["amd64", "arm64"].index(architecture)]
