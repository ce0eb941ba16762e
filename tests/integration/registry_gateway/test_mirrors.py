"""Mirrors are asked first for what is pulled, trusted no more than others, and never pushed to."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.core import errors
from tests.support.fault_proxy import Fault, FaultProxy, Kind, Match
from tests.support.faults import FlipByte, Reset, error_answer
from tests.support.gateway import RunningGateway, run_gateway
from tests.support.images import Built, build_image, manifest_in, random_bytes, upload
from tests.support.registry import RunningRegistry


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A registry that is asked as `registry.example` would be, and its mirror, behind proxies."""

    home: Path
    origin: FaultProxy
    mirror: FaultProxy
    built: Built
    path: str

    @property
    def reference(self) -> str:
        return f"{self.origin.host}/{self.path}:v"

    @property
    def mirrors(self) -> dict[str, tuple[str, ...]]:
        return {self.origin.host: (self.mirror.host,)}


@pytest.fixture
def world(
    short_directory: Path, registry: RunningRegistry, deletable_registry: RunningRegistry
) -> Iterator[World]:
    built = build_image(random_bytes(50_000, time.time_ns()), indent=2)
    path = registry.new_repository().partition("/")[2]
    for one in (registry, deletable_registry):
        upload(one.url, path, built, "v")
    with FaultProxy(registry.host) as origin, FaultProxy(deletable_registry.host) as mirror:
        yield World(home=short_directory, origin=origin, mirror=mirror, built=built, path=path)


async def pull(world: World) -> RunningGateway:
    async with run_gateway(world.home, mirrors=world.mirrors, attempts=1) as gateway:
        result = await gateway.pull(world.reference)
        assert result.manifest == world.built.raw
        assert result.reference == world.reference
        for digest, data in world.built.blobs.items():
            assert gateway.blob_path(digest).read_bytes() == data
        return gateway


async def test_what_a_mirror_has_is_not_asked_of_the_registry(world: World) -> None:
    await pull(world)

    assert world.origin.requests == ()
    assert world.mirror.count(Match(kind=Kind.BLOB)) == len(world.built.blobs)


@pytest.mark.parametrize(
    ("match", "fault"),
    [
        (Match(), Reset()),
        (Match(kind=Kind.MANIFEST), error_answer(404, "MANIFEST_UNKNOWN")),
        (Match(kind=Kind.BLOB), error_answer(404, "BLOB_UNKNOWN")),
        (Match(kind=Kind.BLOB), error_answer(401, "UNAUTHORIZED")),
        (Match(kind=Kind.BLOB), FlipByte(at=1)),
        (Match(kind=Kind.BLOB), Reset(after=10)),
    ],
    ids=["down", "no manifest", "no blob", "wants a login", "lies", "breaks off"],
)
async def test_what_a_mirror_fails_at_is_asked_of_the_registry(
    world: World, match: Match, fault: Fault
) -> None:
    broken = world.mirror.script(match, fault)

    await pull(world)

    assert broken.played >= 1
    assert world.origin.requests != ()


async def test_the_error_is_that_of_the_registry(world: World) -> None:
    async with run_gateway(world.home, mirrors=world.mirrors) as gateway:
        with pytest.raises(errors.ManifestUnknown) as caught:
            await gateway.pull(f"{world.origin.host}/{world.path}:absent")

    assert world.origin.host in caught.value.message


async def test_nothing_is_pushed_to_a_mirror(world: World, registry: RunningRegistry) -> None:
    target = registry.new_repository().partition("/")[2]
    async with run_gateway(world.home, mirrors=world.mirrors) as gateway:
        await gateway.pull(world.reference)
        await gateway.push_image(world.reference, f"{world.origin.host}/{target}:v")

    assert manifest_in(registry.url, target, "v") == world.built.raw
    assert {one.method for one in world.mirror.requests} <= {"GET", "HEAD"}
