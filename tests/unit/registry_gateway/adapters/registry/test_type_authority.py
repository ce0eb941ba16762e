"""A registry's own schemas are kept for minutes, asked for anew by ETag, and read strictly."""

from typing import Any

import pytest

from services.chassis.blocking import Blocking
from services.core import errors
from services.registry_gateway.adapters.registry.exchange import Request
from services.registry_gateway.adapters.registry.shares import Shares
from services.registry_gateway.adapters.registry.type_authority import (
    HttpTypeAuthority,
    parse_types,
)
from services.registry_gateway.adapters.transport.origin import Locator

HOST = "registry.example"
TYPES = {"types": [{"slug": "agent", "schema": {"required": ["ours"]}}]}


class Answer:
    """What a request is answered with."""

    def __init__(self, status: int, body: object = None, etag: str = "") -> None:
        self.status_code = status
        self.body = body
        self.headers = {"ETag": etag} if etag else {}

    def document(self) -> Any:
        if not isinstance(self.body, dict):
            raise errors.RegistryProtocol("not an object")
        return self.body

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class World:
    """Registries by their answer, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.answer: Answer | errors.LnsError = Answer(200, TYPES, 'W/"1"')
        self.asked: list[Request] = []
        self.authority = HttpTypeAuthority(
            exchange=self,  # type: ignore[arg-type]  # the one method that is used
            locator=Locator(),
            calls=Shares(Blocking(1), share=1),
            clock=lambda: self.now,
        )

    def send(self, request: Request, *, stop: object = None) -> Answer:
        self.asked.append(request)
        if isinstance(self.answer, errors.LnsError):
            raise self.answer
        return self.answer


@pytest.fixture
def world() -> World:
    return World()


async def test_an_authority_is_asked_once_in_five_minutes(world: World) -> None:
    first = await world.authority.schemas(HOST)
    world.now = 299.0
    assert await world.authority.schemas(HOST) is first
    assert [one.url for one in world.asked] == [f"https://{HOST}/ext/v1/types"]

    world.now = 301.0
    world.answer = Answer(304)
    assert await world.authority.schemas(HOST) is first
    assert world.asked[1].headers["If-None-Match"] == 'W/"1"'

    world.now = 500.0
    assert await world.authority.schemas(HOST) is first
    assert len(world.asked) == 2


@pytest.mark.parametrize("status", [404, 401, 403, 405, 501])
async def test_a_registry_without_the_address_is_no_authority_for_as_long(
    world: World, status: int
) -> None:
    world.answer = Answer(status)

    assert await world.authority.schemas(HOST) is None
    assert await world.authority.schemas(HOST) is None
    assert len(world.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        errors.RegistryUnavailable("down"),
        Answer(200, "text"),
        Answer(200, {"types": "none"}),
        Answer(200, {"types": [{"slug": "agent"}]}),
    ],
    ids=["down", "no object", "no list", "no schema"],
)
async def test_an_authority_that_fails_once_is_taken_by_what_it_said_before(
    world: World, answer: Answer | errors.LnsError
) -> None:
    first = await world.authority.schemas(HOST)
    world.now, world.answer = 301.0, answer

    assert await world.authority.schemas(HOST) is first
    assert len(world.asked) == 2
    world.answer = Answer(404)
    assert await world.authority.schemas(HOST) is None  # asked again, and it said so


async def test_offline_nobody_is_asked(world: World) -> None:
    assert await world.authority.schemas(HOST, offline=True) is None
    assert world.asked == []
    first = await world.authority.schemas(HOST)
    world.now = 9999.0

    assert await world.authority.schemas(HOST, offline=True) is first


async def test_no_more_than_64_registries_are_remembered(world: World) -> None:
    for number in range(65):
        await world.authority.schemas(f"r{number}.example")

    await world.authority.schemas("r64.example")
    await world.authority.schemas("r1.example")
    assert len(world.asked) == 65
    await world.authority.schemas("r0.example")
    assert len(world.asked) == 66


def test_families_that_lns_does_not_know_are_left_out() -> None:
    read = parse_types(
        {"types": [*TYPES["types"], {"slug": "robot", "schema": 7}, {"slug": ["agent"]}, "text"]}
    )

    assert set(read.texts) == set(read.validators) == {"agent"}
    (problem,) = read.validators["agent"].errors({})
    assert problem.message == "is required"


def test_whoever_waits_for_the_schemas_can_end_the_reading() -> None:
    def ended() -> None:
        raise errors.DeadlineExceeded("over")

    with pytest.raises(errors.DeadlineExceeded):
        parse_types(TYPES, ended)
