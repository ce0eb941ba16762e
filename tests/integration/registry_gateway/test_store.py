"""The node's store: single blobs, leases, pruning, and what happens when a gateway dies."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from lns.registry.v1 import registry_service_pb2 as pb

from services.core import errors
from services.core.digest import Digest
from tests.support.eventually import eventually
from tests.support.fault_proxy import FaultProxy, Kind, Match
from tests.support.faults import Hold
from tests.support.gateway import RunningGateway, run_gateway, run_gateway_process
from tests.support.images import Built, build_image, build_index, random_bytes, upload
from tests.support.registry import RunningRegistry

MIB = 1 << 20
ARM = {"os": "linux", "architecture": "arm64"}


def fresh(size: int = 1000) -> bytes:
    return random_bytes(size, time.time_ns())


def put(registry: RunningRegistry, built: Built, host: str = "") -> str:
    """Puts an image into the registry; returns its reference."""
    path = registry.new_repository().partition("/")[2]
    return f"{host or registry.host}/{upload(registry.url, path, built, 'v1')}"


def header(data: bytes, **changes: Any) -> pb.WriteBlobRequest:
    fields = {"digest": Digest.of(data), "size_bytes": len(data)} | changes
    return pb.WriteBlobRequest(header=pb.WriteBlobHeader(**fields))


def chunk(data: bytes) -> pb.WriteBlobRequest:
    return pb.WriteBlobRequest(chunk=data)


COMMIT = pb.WriteBlobRequest(commit=pb.WriteBlobCommit())


# Single blobs


@pytest.mark.parametrize("size", [0, 1, 512 * 1024, 3 * MIB + 1])
async def test_a_blob_is_written_and_read_back(gateway: RunningGateway, size: int) -> None:
    data = fresh(size)

    digest = await gateway.write(data)

    assert await gateway.read(digest) == data
    assert gateway.blob_path(digest).stat().st_mode & 0o777 == 0o444
    assert gateway.unfinished() == set()


async def test_writing_a_blob_again_says_that_it_existed(gateway: RunningGateway) -> None:
    data = fresh(100)
    steps = [header(data), chunk(data), COMMIT]

    first = await gateway.stub.WriteBlob(iter(steps))
    again = await gateway.stub.WriteBlob(iter(steps))

    assert (first.already_existed, again.already_existed) == (False, True)
    assert (again.digest, again.size_bytes) == (Digest.of(data), 100)


DATA = b"some bytes"
WRONG_WRITES: list[tuple[str, list[pb.WriteBlobRequest], type[errors.LnsError]]] = [
    ("nothing", [], errors.RequestInvalid),
    ("no header", [chunk(DATA), COMMIT], errors.RequestInvalid),
    ("a commit only", [COMMIT], errors.RequestInvalid),
    ("no commit", [header(DATA), chunk(DATA)], errors.RequestInvalid),
    ("two headers", [header(DATA), header(DATA), chunk(DATA), COMMIT], errors.RequestInvalid),
    ("after the commit", [header(DATA), chunk(DATA), COMMIT, chunk(b"x")], errors.RequestInvalid),
    ("too large a chunk", [header(DATA), chunk(b"x" * (MIB + 1)), COMMIT], errors.RequestInvalid),
    ("an empty step", [pb.WriteBlobRequest()], errors.RequestInvalid),
    ("no digest", [header(DATA, digest="zz"), chunk(DATA), COMMIT], errors.DigestInvalid),
    ("a negative size", [header(DATA, size_bytes=-1), COMMIT], errors.RequestInvalid),
    ("too few bytes", [header(DATA), chunk(DATA[:-1]), COMMIT], errors.DigestMismatch),
    ("too many bytes", [header(DATA), chunk(DATA + b"x"), COMMIT], errors.DigestMismatch),
    ("other bytes", [header(DATA), chunk(DATA[::-1]), COMMIT], errors.DigestMismatch),
    (
        "another digest",
        [header(DATA, digest=Digest.of(b"x")), chunk(DATA), COMMIT],
        errors.DigestMismatch,
    ),
]


@pytest.mark.parametrize(
    ("name", "steps", "expected"), WRONG_WRITES, ids=[row[0] for row in WRONG_WRITES]
)
async def test_a_write_that_is_not_as_announced_stores_nothing(
    gateway: RunningGateway,
    name: str,
    steps: list[pb.WriteBlobRequest],
    expected: type[errors.LnsError],
) -> None:
    with pytest.raises(expected):
        await gateway.stub.WriteBlob(iter(steps))

    assert gateway.stored() == set()
    assert gateway.unfinished() == set()


async def test_a_write_whose_client_died_stores_nothing(gateway: RunningGateway) -> None:
    data = fresh(MIB)
    sent = asyncio.Event()

    async def steps() -> AsyncIterator[pb.WriteBlobRequest]:
        yield header(data)
        yield chunk(data)
        sent.set()
        await asyncio.Event().wait()

    writing = asyncio.ensure_future(gateway.stub.WriteBlob(steps()))
    await sent.wait()
    await eventually(lambda: bool(gateway.unfinished()))
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)

    await eventually(lambda: gateway.unfinished() == set())
    assert gateway.stored() == set()


@pytest.mark.parametrize(
    ("offset", "limit", "expected"),
    [
        (0, 0, slice(0, None)),
        (5, 0, slice(5, None)),
        (5, 10, slice(5, 15)),
        (MIB, 3, slice(MIB, MIB + 3)),
        (2 * MIB, 0, slice(2 * MIB, None)),
        (2 * MIB - 1, 100, slice(2 * MIB - 1, None)),
    ],
)
async def test_a_part_of_a_blob_is_read(
    gateway: RunningGateway, offset: int, limit: int, expected: slice
) -> None:
    data = fresh(2 * MIB)
    digest = await gateway.write(data)

    request = pb.ReadBlobRequest(digest=digest, offset_bytes=offset, limit_bytes=limit)
    pieces = [piece async for piece in gateway.stub.ReadBlob(request)]

    assert b"".join(piece.data for piece in pieces) == data[expected]
    assert pieces[0].total_bytes == len(data)
    at = offset
    for piece in pieces:
        assert piece.offset_bytes == at
        at += len(piece.data)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"digest": "zz"}, errors.DigestInvalid),
        ({"digest": Digest.of(b"absent")}, errors.BlobUnknown),
        ({"offset_bytes": -1}, errors.RequestInvalid),
        ({"offset_bytes": 11}, errors.RequestInvalid),
        ({"limit_bytes": -1}, errors.RequestInvalid),
    ],
    ids=str,
)
async def test_a_read_of_what_does_not_exist_is_refused(
    gateway: RunningGateway, fields: dict[str, Any], expected: type[errors.LnsError]
) -> None:
    digest = await gateway.write(DATA)

    with pytest.raises(expected):
        await gateway.read(**({"digest": digest} | fields))


# Tags and leases


async def test_stored_images_come_sorted_and_by_pages(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    references = sorted([put(registry, build_image(fresh())) for _ in range(5)])
    for reference in references:
        await gateway.pull(reference)

    found, token = [], ""
    while True:
        page = await gateway.call("ListStoredImages", page_size=2, page_token=token)
        assert len(page.images) <= 2
        found += [image.reference for image in page.images]
        token = page.next_page_token
        if not token:
            break

    assert found == references


async def test_an_image_is_removed_by_tag_or_with_all_its_tags_by_digest(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    built = build_image(fresh())
    one, two, three = (put(registry, built) for _ in range(3))
    for reference in (one, two, three):
        await gateway.pull(reference)

    by_tag = await gateway.call("RemoveStoredImage", reference=one)
    pinned = f"{two.rpartition(':')[0]}@{built.digest}"
    by_digest = await gateway.call("RemoveStoredImage", reference=pinned)

    assert list(by_tag.references) == [one]
    assert list(by_digest.references) == sorted([two, three])
    with pytest.raises(errors.ImageUnknown):
        await gateway.call("RemoveStoredImage", reference=one)
    assert (await gateway.call("PruneBlobs")).freed_bytes > 0
    assert gateway.stored() == set()


async def test_a_prune_removes_what_nothing_needs_and_says_so(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    shared = fresh(5000)
    kept, gone = build_image(shared, fresh()), build_image(shared, fresh(3000))
    kept_reference, gone_reference = put(registry, kept), put(registry, gone)
    await gateway.pull(kept_reference)
    await gateway.pull(gone_reference)
    await gateway.call("RemoveStoredImage", reference=gone_reference)
    lost = {gone.digest, *gone.blobs} - set(kept.blobs)
    sizes = {**gone.blobs, gone.digest: gone.raw}

    announced = await gateway.call("PruneBlobs", dry_run=True)
    assert lost <= gateway.stored()
    done = await gateway.call("PruneBlobs")

    assert list(announced.digests) == list(done.digests) == sorted(lost)
    assert announced.freed_bytes == done.freed_bytes == sum(len(sizes[digest]) for digest in lost)
    assert gateway.stored() == {kept.digest, *kept.blobs}


async def test_a_lease_keeps_a_manifest_with_everything_that_it_names(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    image = build_image(fresh(), fresh(), architecture="arm64")
    index = build_index(("amd64", build_image(fresh())), ("arm64", image))
    reference = put(registry, index)
    await gateway.pull(reference, all_platforms=True)
    everything = gateway.stored()
    lease = await gateway.call(
        "AcquireLease", lease_id="l1", holder="a test", digests=[index.digest]
    )
    assert list(lease.lease.digests) == [index.digest]
    assert not lease.lease.HasField("expire_time")

    with pytest.raises(errors.InUse, match="a test"):
        await gateway.call("RemoveStoredImage", reference=reference)
    assert list((await gateway.call("PruneBlobs", include_tagged=True)).digests) == []
    assert gateway.stored() == everything

    # The same id with other content is the same lease, with that content.
    await gateway.call("AcquireLease", lease_id="l1", digests=[image.digest])
    await gateway.call("RemoveStoredImage", reference=reference)
    await gateway.call("PruneBlobs")
    assert gateway.stored() == {image.digest, *image.blobs}

    for _ in range(2):
        await gateway.call("ReleaseLease", lease_id="l1")
    await gateway.call("PruneBlobs")
    assert gateway.stored() == set()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"lease_id": ""}, errors.RequestInvalid),
        ({"lease_id": "x" * 300}, errors.RequestInvalid),
        ({"holder": "x" * 300}, errors.RequestInvalid),
        ({"digests": ["zz"]}, errors.DigestInvalid),
        ({"digests": [Digest.of(b"absent")]}, errors.BlobUnknown),
        ({"digests": [Digest.of(b"absent")] * 5000}, errors.RequestInvalid),
        ({"time_to_live": {"seconds": -1}}, errors.RequestInvalid),
        ({"time_to_live": {}}, errors.RequestInvalid),
        ({"time_to_live": {"seconds": 1 << 40}}, errors.RequestInvalid),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_a_lease_that_cannot_be_is_refused(
    gateway: RunningGateway, fields: dict[str, Any], expected: type[errors.LnsError]
) -> None:
    with pytest.raises(expected):
        await gateway.call("AcquireLease", **({"lease_id": "l"} | fields))


async def test_a_written_blob_is_kept_until_a_manifest_can_name_it(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    digest = await gateway.write(DATA)

    await gateway.call("PruneBlobs", include_tagged=True)

    assert gateway.stored() == {digest}


async def test_leases_and_tags_outlive_the_gateway(
    short_directory: Path, registry: RunningRegistry
) -> None:
    built, other = build_image(fresh()), build_image(fresh())
    async with run_gateway(short_directory) as first:
        reference, leased = put(registry, built), put(registry, other)
        await first.pull(reference)
        await first.pull(leased)
        await first.call("AcquireLease", lease_id="l", digests=[other.digest])
    async with run_gateway(short_directory) as second:
        await second.call("PruneBlobs", include_tagged=True)
        assert second.stored() == {other.digest, *other.blobs}


# Pruning beside other work


async def test_a_prune_leaves_alone_what_a_pull_in_flight_needs(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    big, small = fresh(2 * MIB), fresh()
    built = build_image(small, big)
    reference = put(registry, built, proxy.host)
    hold = Hold(after=MIB)
    proxy.script(Match(method="GET", kind=Kind.BLOB, digest=Digest.of(big)), hold, times=1)
    pulling = asyncio.ensure_future(gateway.pull(reference))
    await asyncio.to_thread(hold.gate.wait_for)
    await eventually(lambda: gateway.blob_path(Digest.of(small)).exists())

    pruned = await gateway.call("PruneBlobs", include_tagged=True)
    hold.gate.open()
    await pulling

    assert list(pruned.digests) == []
    assert gateway.stored() == {built.digest, *built.blobs}
    assert proxy.count(Match(method="GET", kind=Kind.BLOB, digest=Digest.of(small))) == 1


async def test_pruning_races_pulls_and_never_takes_what_they_brought(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    shared = [fresh(50_000) for _ in range(4)]
    images = [build_image(*shared, fresh()) for _ in range(6)]
    references = [put(registry, built) for built in images]
    ended = asyncio.Event()

    async def prune() -> int:
        count = 0
        while not ended.is_set():
            await gateway.call("PruneBlobs")
            count += 1
        return count

    async def churn(built: Built, reference: str) -> None:
        for _ in range(5):
            await gateway.pull(reference)
            for digest in built.blobs:
                assert gateway.blob_path(digest).exists(), "a tag names it"
            got = await gateway.call("GetManifest", reference=reference, include_config=True)
            assert Digest.of(got.config) in built.blobs
            with contextlib.suppress(errors.ImageUnknown):
                await gateway.call("RemoveStoredImage", reference=reference)
        await gateway.pull(reference)

    pruning = [asyncio.ensure_future(prune()) for _ in range(2)]
    try:
        await asyncio.gather(*(churn(*pair) for pair in zip(images, references, strict=True)))
    finally:
        ended.set()
    assert min(await asyncio.gather(*pruning)) > 3

    await gateway.call("PruneBlobs")
    expected = {digest for built in images for digest in (built.digest, *built.blobs)}
    assert gateway.stored() == expected


async def test_a_blob_that_was_damaged_on_the_disk_is_fetched_again(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    built = build_image(fresh())
    reference = put(registry, built)
    await gateway.pull(reference)
    path = gateway.blob_path(built.digest)
    path.chmod(0o600)
    path.write_bytes(b"damaged")

    with pytest.raises(errors.ContentCorrupt):
        await gateway.call("GetManifest", reference=reference, offline=True)
    await gateway.pull(reference)

    assert path.read_bytes() == built.raw


@pytest.mark.parametrize("mode", [pb.PULL_MODE_ALWAYS, pb.PULL_MODE_MISSING])
async def test_a_pull_that_verifies_fetches_what_is_damaged_and_nothing_else(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy, mode: int
) -> None:
    layer, other = fresh(2 * MIB), fresh()
    built = build_image(layer, other)
    reference = put(registry, built, proxy.host)
    await gateway.pull(reference)
    path = gateway.blob_path(Digest.of(layer))
    path.chmod(0o600)
    path.write_bytes(layer[:-1] + b"x")
    proxy.forget()

    await gateway.pull(reference, mode=mode)
    assert path.read_bytes() != layer, "a pull trusts its own store"
    result = await gateway.pull(reference, mode=mode, verify=True)

    assert path.read_bytes() == layer
    assert result.transferred_bytes == len(layer)
    assert proxy.count(Match(method="GET", kind=Kind.BLOB)) == 1


# Death


async def drain(call: Any) -> list[Any]:
    return [event async for event in call]


async def test_a_pull_goes_on_after_the_gateway_was_killed(
    short_directory: Path, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    big = fresh(8 * MIB)
    built = build_image(big)
    reference = put(registry, built, proxy.host)
    get = Match(method="GET", kind=Kind.BLOB, digest=Digest.of(big))
    proxy.script(get, Hold(after=5 * MIB), times=1)
    request = pb.PullRequest(reference=reference)
    part = short_directory / "blobs" / "ingest" / f"{Digest.of(big).hex}.part"

    async with run_gateway_process(short_directory) as (process, stub):
        pulling = asyncio.ensure_future(drain(stub.Pull(request)))
        await eventually(lambda: part.exists() and part.stat().st_size >= 4 * MIB)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(errors.ServiceUnavailable):
            await pulling
    assert not (short_directory / "blobs" / "sha256" / Digest.of(big).hex).exists()
    there = part.stat().st_size

    async with run_gateway_process(short_directory) as (_, stub):
        events = await drain(stub.Pull(request))

    assert events[-1].result.manifest == built.raw
    assert proxy.select(get)[-1].headers["range"] == f"bytes={there}-{len(big) - 1}"
    assert (short_directory / "blobs" / "sha256" / Digest.of(big).hex).read_bytes() == big


async def test_a_gateway_ends_on_sigterm_while_a_pull_hangs(
    short_directory: Path, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    reference = put(registry, build_image(fresh(MIB)), proxy.host)
    hold = Hold()
    proxy.script(Match(method="GET", kind=Kind.BLOB), hold)

    async with run_gateway_process(short_directory) as (process, stub):
        pulling = asyncio.ensure_future(drain(stub.Pull(pb.PullRequest(reference=reference))))
        await asyncio.to_thread(hold.gate.wait_for)
        process.terminate()
        async with asyncio.timeout(20):
            assert await process.wait() == 0
        with pytest.raises(errors.ServiceUnavailable):
            await pulling


async def test_a_part_that_was_damaged_meanwhile_begins_anew(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    big = fresh(3 * MIB)
    built = build_image(big)
    reference = put(registry, built)
    ingest = gateway.home / "blobs" / "ingest"
    (ingest / f"{Digest.of(big).hex}.part").write_bytes(b"x" * MIB)
    for digest, data in built.blobs.items():
        if data is not big:
            (ingest / f"{Digest(digest).hex}.part").write_bytes(data + b"longer than it")

    await gateway.pull(reference)

    assert gateway.blob_path(Digest.of(big)).read_bytes() == big
    assert gateway.unfinished() == set()


async def test_a_part_that_was_whole_already_needs_no_transfer(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    big = fresh(3 * MIB)
    built = build_image(big)
    reference = put(registry, built, proxy.host)
    (gateway.home / "blobs" / "ingest" / f"{Digest.of(big).hex}.part").write_bytes(big)

    await gateway.pull(reference)

    assert proxy.count(Match(method="GET", kind=Kind.BLOB, digest=Digest.of(big))) == 0
    assert gateway.blob_path(Digest.of(big)).read_bytes() == big


async def test_a_prune_removes_what_interrupted_transfers_left(gateway: RunningGateway) -> None:
    (gateway.home / "blobs" / "ingest" / f"{'0' * 64}.part").write_bytes(b"x" * 100)

    answer = await gateway.call("PruneBlobs")

    assert answer.freed_bytes == 100
    assert gateway.unfinished() == set()
