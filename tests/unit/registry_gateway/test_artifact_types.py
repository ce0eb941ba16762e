import asyncio
import threading
from collections.abc import Callable

import pytest
from jsonschema import ValidationError

from services.chassis.blocking import Blocking
from services.core.artifacts.bounded_validator import SchemaValidator
from services.core.artifacts.families import family_by_slug
from services.core.reference import Reference
from services.registry_gateway.artifact_types import ArtifactTypes
from services.registry_gateway.ports import AuthoritySchemas

REFERENCE = Reference.parse("localhost:5000/agents/a:1")


class Endless(SchemaValidator):
    """A schema whose check goes on until it is ended."""

    def __init__(self) -> None:
        super().__init__({})
        self.begun = threading.Event()
        self.ended = threading.Event()

    def errors(
        self, document: object, *, wanted: Callable[[], None] = lambda: None
    ) -> list[ValidationError]:
        self.begun.set()
        try:
            while True:
                wanted()
        finally:
            self.ended.set()


class Authority:
    def __init__(self, validator: SchemaValidator) -> None:
        self._schemas = AuthoritySchemas(texts={}, validators={"agent": validator})

    async def schemas(self, host: str, *, offline: bool = False) -> AuthoritySchemas:
        return self._schemas


async def test_a_check_ends_with_the_call_that_wanted_it() -> None:
    validator = Endless()
    with Blocking(1) as blocking:
        types = ArtifactTypes(Authority(validator), blocking)
        document = b"{kind: Agent}"
        checking = asyncio.ensure_future(types.check(REFERENCE, family_by_slug("agent"), document))
        await asyncio.to_thread(validator.begun.wait, 30)
        checking.cancel()

        with pytest.raises(asyncio.CancelledError):
            await checking
        assert validator.ended.is_set()
