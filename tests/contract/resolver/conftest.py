"""A real registry, for the implementer that needs one."""

from tests.support.registry_fixtures import registry

__all__ = ["registry"]
