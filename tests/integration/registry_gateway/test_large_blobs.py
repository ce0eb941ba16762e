"""Large blobs: pushed in chunks that can be taken up, pulled in ranges over slow links.

The sizes from which that is done are settings; here they are small.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import urllib3
from lns.registry.v1 import registry_service_pb2 as pb

from services.core import errors
from services.core.descriptor import OCI_LAYER_GZIP
from services.core.digest import Digest
from tests.support.eventually import eventually
from tests.support.fault_proxy import Fault, FaultProxy, Kind, Match
from tests.support.faults import (
    Answer,
    CutUpload,
    DropAnswer,
    FlipByte,
    Hold,
    IgnoreRange,
    ReplaceHeaders,
    Reset,
    ShiftRange,
    Truncate,
    error_answer,
    server_error,
)
from tests.support.gateway import RunningGateway, run_gateway
from tests.support.images import blob_in, build_image, random_bytes, upload
from tests.support.registry import RunningRegistry

CHUNK = 256 * 1024
SIZE = 5 * CHUNK + 17
PATCH = Match(method="PATCH", kind=Kind.UPLOAD)
DOCUMENT = json.dumps(
    {"apiVersion": "lens.dev/v1alpha1", "kind": "Knowledge", "metadata": {"name": "k"}, "spec": {}}
).encode()


@pytest_asyncio.fixture
async def gateway(short_directory: Path) -> AsyncIterator[RunningGateway]:
    """A gateway for which blobs are large soon, and every link is slow."""
    async with run_gateway(
        short_directory,
        stall_timeout=5.0,
        upload_chunk=CHUNK,
        range_size=CHUNK,
        range_latency=0.0,
    ) as running:
        yield running


async def push(gateway: RunningGateway, reference: str, data: bytes) -> None:
    """Pushes an artifact with one layer."""
    digest = await gateway.write(data)
    layer = {"media_type": OCI_LAYER_GZIP, "digest": digest, "size_bytes": len(data)}
    await gateway.call(
        "PushArtifact", reference=reference, family="knowledge", document=DOCUMENT, layers=[layer]
    )


def new_path(registry: RunningRegistry) -> str:
    return registry.new_repository().partition("/")[2]


# Chunks


async def test_a_large_blob_is_pushed_in_chunks(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    data, path = random_bytes(SIZE, time.time_ns()), new_path(registry)

    await push(gateway, f"{proxy.host}/{path}:v", data)

    sizes = [one.received_bytes for one in proxy.select(PATCH)]
    assert sizes == [CHUNK] * 5 + [17]
    assert blob_in(registry.url, path, Digest.of(data)) == data
    assert not list((gateway.home / "gateway" / "uploads").iterdir())


CUTS: list[tuple[str, Fault, int, int]] = [
    # name, fault, chunks before it, chunks that are sent in all
    ("between two chunks", Reset(), 2, 7),
    ("a 503 between two chunks", server_error(503), 2, 7),
    # Registry 2.8 loses an upload that was cut inside a chunk: the blob begins anew.
    ("inside a chunk", CutUpload(after=1000), 2, 9),
    ("inside the first chunk", CutUpload(after=1000), 0, 7),
    ("the answer to a chunk", DropAnswer(), 2, 9),
    ("the session vanished", error_answer(404, "BLOB_UPLOAD_UNKNOWN"), 3, 7),
    ("the session is not valid", error_answer(404, "BLOB_UPLOAD_INVALID"), 3, 7),
]


@pytest.mark.parametrize(("name", "fault", "skip", "chunks"), CUTS, ids=[row[0] for row in CUTS])
async def test_a_broken_upload_goes_on_where_the_registry_is_or_begins_anew(
    gateway: RunningGateway,
    registry: RunningRegistry,
    proxy: FaultProxy,
    name: str,
    fault: Fault,
    skip: int,
    chunks: int,
) -> None:
    data, path = random_bytes(SIZE, time.time_ns()), new_path(registry)
    broken = proxy.script(PATCH, fault, times=1, skip=skip)

    await push(gateway, f"{proxy.host}/{path}:v", data)

    assert broken.played == 1
    assert proxy.count(PATCH) == chunks
    assert blob_in(registry.url, path, Digest.of(data)) == data


@pytest.mark.parametrize("status", [404, 405, 413, 416])
async def test_a_registry_that_takes_no_chunks_gets_the_blob_in_one_request(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy, status: int
) -> None:
    data, path = random_bytes(SIZE, time.time_ns()), new_path(registry)
    proxy.script(PATCH, Answer(status=status))

    await push(gateway, f"{proxy.host}/{path}:v", data)

    assert proxy.count(PATCH) == 1
    assert blob_in(registry.url, path, Digest.of(data)) == data


@pytest.mark.parametrize(
    "header",
    [None, "", "0-0", "bytes=0-99999999999", "nonsense", "0--1", f"0-{CHUNK - 1}x"],
)
async def test_a_range_that_cannot_be_is_not_believed(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy, header: str | None
) -> None:
    data, path = random_bytes(SIZE, time.time_ns()), new_path(registry)
    proxy.script(PATCH, ReplaceHeaders(headers={"Range": header}), times=1, skip=1)

    await push(gateway, f"{proxy.host}/{path}:v", data)

    assert blob_in(registry.url, path, Digest.of(data)) == data


async def test_a_registry_that_wants_larger_chunks_gets_them(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    data, path = random_bytes(SIZE, time.time_ns()), new_path(registry)
    wish = ReplaceHeaders(headers={"OCI-Chunk-Min-Length": str(2 * CHUNK)})
    proxy.script(Match(method="POST", kind=Kind.UPLOAD), wish)

    await push(gateway, f"{proxy.host}/{path}:v", data)

    assert [one.received_bytes for one in proxy.select(PATCH)] == [2 * CHUNK, 2 * CHUNK, CHUNK + 17]


async def test_an_upload_goes_on_after_the_gateway_ended(
    short_directory: Path, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    data, path = random_bytes(SIZE, time.time_ns()), new_path(registry)
    reference = f"{proxy.host}/{path}:v"
    hold = Hold()
    proxy.script(PATCH, hold, times=1, skip=3)
    settings = {"upload_chunk": CHUNK, "stall_timeout": 5.0}
    async with run_gateway(short_directory, **settings) as first:
        pushing = asyncio.ensure_future(push(first, reference, data))
        await asyncio.to_thread(hold.gate.wait_for)
        pushing.cancel()
        await asyncio.gather(pushing, return_exceptions=True)
    assert list((short_directory / "gateway" / "uploads").iterdir())

    proxy.forget()
    async with run_gateway(short_directory, **settings) as second:
        await push(second, reference, data)

    assert [one.received_bytes for one in proxy.select(PATCH)] == [CHUNK, CHUNK, 17]
    assert blob_in(registry.url, path, Digest.of(data)) == data
    assert not list((short_directory / "gateway" / "uploads").iterdir())


async def test_an_upload_that_the_registry_forgot_meanwhile_begins_anew(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    data, path = random_bytes(SIZE, time.time_ns()), new_path(registry)
    reference = f"{proxy.host}/{path}:v"
    hold = Hold()
    proxy.script(PATCH, hold, times=1, skip=3)
    pushing = asyncio.ensure_future(push(gateway, reference, data))
    await asyncio.to_thread(hold.gate.wait_for)
    pushing.cancel()
    await asyncio.gather(pushing, return_exceptions=True)
    (kept,) = (gateway.home / "gateway" / "uploads").iterdir()
    location = json.loads(kept.read_text())["location"]
    forgotten = await asyncio.to_thread(urllib3.request, "DELETE", location)
    assert forgotten.status == 204

    proxy.forget()
    await push(gateway, reference, data)

    assert proxy.count(PATCH) == 6
    assert blob_in(registry.url, path, Digest.of(data)) == data


# Ranges


@pytest.fixture
def image(registry: RunningRegistry, proxy: FaultProxy) -> tuple[bytes, str]:
    """A layer and the reference of its image by way of the proxy."""
    data = random_bytes(9 * CHUNK + 5, time.time_ns())
    path = new_path(registry)
    return data, f"{proxy.host}/{upload(registry.url, path, build_image(data), 'v')}"


def get(data: bytes) -> Match:
    return Match(method="GET", kind=Kind.BLOB, digest=Digest.of(data))


async def test_a_large_blob_is_pulled_in_ranges_over_several_connections(
    gateway: RunningGateway, proxy: FaultProxy, image: tuple[bytes, str]
) -> None:
    data, reference = image
    hold = Hold()
    proxy.script(get(data), hold, times=4)

    pulling = asyncio.ensure_future(gateway.pull(reference))
    await asyncio.to_thread(hold.gate.wait_for, 4)  # at the same time
    hold.gate.open()
    await pulling

    asked = sorted(
        int(one.headers["range"][6:].partition("-")[0]) for one in proxy.select(get(data))
    )
    assert asked == [at * CHUNK for at in range(10)]
    assert gateway.blob_path(Digest.of(data)).read_bytes() == data


RANGE_FAULTS: list[tuple[str, Fault, int]] = [
    ("reset", Reset(after=100), 1),
    ("truncated", Truncate(after=CHUNK // 2), 3),
    ("status 500", server_error(500), 2),
    ("one range refused", Answer(status=416), 1),
    ("one range ignored", IgnoreRange(), 1),
    ("one range shifted", ShiftRange(by=1), 1),
    ("one range lied about", ShiftRange(by=1, honest=False), 1),
    ("no header", ReplaceHeaders(headers={"Content-Range": None}), 1),
    ("a flipped byte", FlipByte(at=3), 1),
]


@pytest.mark.parametrize(
    ("name", "fault", "times"), RANGE_FAULTS, ids=[row[0] for row in RANGE_FAULTS]
)
@pytest.mark.parametrize("skip", [0, 5])
async def test_ranges_that_fail_are_fetched_again(
    gateway: RunningGateway,
    proxy: FaultProxy,
    image: tuple[bytes, str],
    name: str,
    fault: Fault,
    times: int,
    skip: int,
) -> None:
    data, reference = image
    broken = proxy.script(get(data), fault, times=times, skip=skip)

    try:
        await gateway.pull(reference)
    except errors.ContentCorrupt:
        # What is wrong inside of a range shows at the end; nothing says which range it was.
        assert name in ("a flipped byte", "one range lied about")
        assert Digest.of(data) not in gateway.stored()
        await gateway.pull(reference)

    assert broken.played == times
    assert gateway.blob_path(Digest.of(data)).read_bytes() == data
    assert gateway.unfinished() == set()


async def test_a_registry_without_ranges_is_pulled_from_in_one_piece(
    gateway: RunningGateway, proxy: FaultProxy, image: tuple[bytes, str]
) -> None:
    data, reference = image
    proxy.script(get(data), IgnoreRange())

    await gateway.pull(reference)

    assert gateway.blob_path(Digest.of(data)).read_bytes() == data
    assert "range" not in proxy.select(get(data))[-1].headers


async def test_a_pull_in_ranges_goes_on_where_it_was_cancelled(
    gateway: RunningGateway, proxy: FaultProxy, image: tuple[bytes, str]
) -> None:
    data, reference = image
    proxy.script(get(data), Hold(after=0), skip=6)
    part = gateway.home / "blobs" / "ingest" / f"{Digest.of(data).hex}.part"
    call = gateway.stub.Pull(pb.PullRequest(reference=reference))
    pulling = asyncio.ensure_future(_drain(call))
    await eventually(lambda: part.exists() and part.stat().st_size >= 3 * CHUNK)
    pulling.cancel()
    await asyncio.gather(pulling, return_exceptions=True)

    await eventually(lambda: part.stat().st_size % CHUNK == 0)
    there = part.stat().st_size
    assert part.read_bytes() == data[:there], "the part is always a beginning of the blob"
    proxy.heal()
    proxy.forget()
    await gateway.pull(reference)

    assert gateway.blob_path(Digest.of(data)).read_bytes() == data
    first = min(int(one.headers["range"][6:].partition("-")[0]) for one in proxy.select(get(data)))
    # A segment that had arrived may still have been written after the look at the part.
    assert first >= there
    assert first % CHUNK == 0


async def _drain(call: AsyncIterator[pb.PullResponse]) -> None:
    async for _ in call:
        pass
