"""A device login is polled until a user agreed, stored once, and bounded in number and time."""

from pathlib import Path

import pytest

from services.chassis.blocking import Blocking
from services.core.errors import (
    LimitExceeded,
    RegistryUnauthenticated,
    RegistryUnavailable,
    RequestInvalid,
    Unimplemented,
)
from services.registry_gateway.device_logins import MAX_PENDING, DeviceLogins
from services.registry_gateway.login_ports import Credential, DeviceCode
from services.registry_gateway.logins import Logins
from tests.fakes.registry import FakeRegistry
from tests.fakes.registry_store import MemoryLogins

HOST = "registry.example"
TOKEN = Credential(username="", secret="refresh")


class Issuer:
    """An issuer whose user agrees after some polls; implements `DeviceIssuer`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.answers: list[Credential | Exception | None] = []
        self.polls: list[float] = []
        self.waited: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now += seconds

    async def start(self, host: str) -> DeviceCode:
        if host != HOST:
            raise Unimplemented("none")
        return DeviceCode(
            registry=host,
            device_code="secret",
            user_code="ABCD",
            verification_uri="https://issuer.example/device",
            token_endpoint="https://issuer.example/token",
            interval=5.0,
            expires_in=60.0,
            expires=self.now + 60.0,
        )

    async def poll(self, code: DeviceCode) -> Credential | None:
        self.polls.append(self.now)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    """Device logins over fakes."""

    def __init__(self, threads: Blocking) -> None:
        self.issuer = Issuer()
        self.stored = MemoryLogins()
        self.registry = FakeRegistry()
        self.registry.passwords[HOST] = TOKEN.secret
        self.logins = DeviceLogins(
            self.issuer,
            Logins(self.stored, self.registry, threads),
            clock=self.issuer.clock,
            sleep=self.issuer.sleep,
        )


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Blocking(1))


def kept(world: World) -> list[str]:
    return [one.registry for one in world.stored.list_logins()]


async def test_a_login_is_polled_at_its_interval_until_the_user_agrees(world: World) -> None:
    world.issuer.answers = [None, None, TOKEN]
    login, code = await world.logins.start(f"https://{HOST}/")

    stored = await world.logins.finish(login)

    assert (code.user_code, stored.registry) == ("ABCD", HOST)
    assert world.issuer.waited == [5.0, 5.0]
    assert kept(world) == [HOST]


async def test_an_issuer_that_cannot_be_reached_for_once_is_asked_again(world: World) -> None:
    world.issuer.answers = [RegistryUnavailable("down"), TOKEN]
    login, _ = await world.logins.start(HOST)

    await world.logins.finish(login)

    assert kept(world) == [HOST]


async def test_a_login_that_takes_too_long_ends_and_stores_nothing(world: World) -> None:
    login, _ = await world.logins.start(HOST)

    with pytest.raises(RegistryUnauthenticated, match="took too long"):
        await world.logins.finish(login)

    assert len(world.issuer.polls) == 12  # sixty seconds in steps of five
    assert kept(world) == []


@pytest.mark.parametrize("failure", [RegistryUnauthenticated("refused"), RequestInvalid("odd")])
async def test_a_login_that_was_refused_is_over(world: World, failure: Exception) -> None:
    world.issuer.answers = [failure, TOKEN]
    login, _ = await world.logins.start(HOST)

    with pytest.raises(type(failure)):
        await world.logins.finish(login)
    with pytest.raises(RequestInvalid, match="does not exist or has expired"):
        await world.logins.finish(login)
    assert kept(world) == []


async def test_a_token_that_the_registry_refuses_is_not_stored(world: World) -> None:
    world.registry.passwords[HOST] = "another"
    world.issuer.answers = [TOKEN]
    login, _ = await world.logins.start(HOST)

    with pytest.raises(RegistryUnauthenticated):
        await world.logins.finish(login)
    assert kept(world) == []


async def test_a_login_is_finished_once(world: World) -> None:
    world.issuer.answers = [TOKEN]
    login, _ = await world.logins.start(HOST)
    await world.logins.finish(login)

    with pytest.raises(RequestInvalid):
        await world.logins.finish(login)


async def test_logins_that_nobody_finishes_are_bounded_and_give_way_when_they_expire(
    world: World,
) -> None:
    for _ in range(MAX_PENDING):
        await world.logins.start(HOST)
    with pytest.raises(LimitExceeded, match=f"{MAX_PENDING} device logins"):
        await world.logins.start(HOST)

    world.issuer.now += 60.0

    login, _ = await world.logins.start(HOST)
    world.issuer.answers = [TOKEN]
    await world.logins.finish(login)


async def test_a_registry_that_advertises_none_takes_no_place(world: World) -> None:
    for _ in range(MAX_PENDING + 1):
        with pytest.raises(Unimplemented):
            await world.logins.start("plain.example")

    await world.logins.start(HOST)
