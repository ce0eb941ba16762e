"""The gateway's ports with their real adapters and their fakes."""

from tests.support.registry_fixtures import deletable_registry

__all__ = ["deletable_registry"]
