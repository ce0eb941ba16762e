"""Many clients at once: no blob moved twice, no deadlock, flat memory."""

import asyncio
import random
import time
from collections import Counter
from pathlib import Path

from lns.registry.v1 import registry_service_pb2 as pb

from services.core import errors
from services.core.digest import Digest
from tests.support.fault_proxy import FaultProxy, Kind, Match
from tests.support.gateway import RunningGateway, run_gateway_process
from tests.support.images import Built, build_image, manifest_in, random_bytes, upload
from tests.support.registry import RunningRegistry

MIB = 1 << 20
CLIENTS = 32


def peak_memory(pid: int) -> int:
    """The most resident memory that a process ever had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(peak.split()[1]) * 1024


async def test_many_clients_pull_and_push_overlapping_images(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    seed = time.time_ns()
    layers = [random_bytes(400_000 + 1000 * n, f"{seed}-{n}") for n in range(12)]
    choose = random.Random(seed)  # noqa: S311 - which test data
    images: list[tuple[Built, str]] = []
    for _ in range(8):
        built = build_image(*choose.sample(layers, 5))
        path = registry.new_repository().partition("/")[2]
        images.append((built, f"{proxy.host}/{upload(registry.url, path, built, 'v')}"))

    async def client(number: int) -> None:
        mine = random.Random(seed + number)  # noqa: S311 - which test data
        for _ in range(4):
            built, reference = mine.choice(images)
            result = await gateway.pull(reference)
            assert result.manifest == built.raw
            target = registry.new_repository().partition("/")[2]
            pushed = await gateway.push_image(reference, f"{proxy.host}/{target}:{number}")
            assert pushed.descriptor.digest == built.digest
            if mine.random() < 0.3:
                await gateway.call("PruneBlobs")

    async with asyncio.timeout(50):
        await asyncio.gather(*(client(number) for number in range(CLIENTS)))

    fetched = Counter(one.digest for one in proxy.select(Match(method="GET", kind=Kind.BLOB)))
    assert set(fetched.values()) == {1}, "no blob came twice"
    sent = [one for one in proxy.select(Match(kind=Kind.UPLOAD)) if one.received_bytes]
    assert sent == [], "what the registry has is mounted"
    assert gateway.unfinished() == set()


async def test_many_clients_push_the_same_new_blobs(
    gateway: RunningGateway, deletable_registry: RunningRegistry, registry: RunningRegistry
) -> None:
    built = build_image(random_bytes(MIB, time.time_ns()), random_bytes(1000, time.time_ns()))
    path = registry.new_repository().partition("/")[2]
    await gateway.pull(f"{registry.host}/{upload(registry.url, path, built, 'v')}")
    source = f"{registry.host}/{path}:v"
    target = deletable_registry.new_repository().partition("/")[2]

    await asyncio.gather(
        *(
            gateway.push_image(source, f"{deletable_registry.host}/{target}:t{number}")
            for number in range(CLIENTS)
        )
    )

    for number in range(CLIENTS):
        assert manifest_in(deletable_registry.url, target, f"t{number}") == built.raw


async def test_clients_that_leave_again_and_again_leave_nothing_behind(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    data = random_bytes(3 * MIB, time.time_ns())
    built = build_image(data)
    path = registry.new_repository().partition("/")[2]
    request = pb.PullRequest(reference=f"{proxy.host}/{upload(registry.url, path, built, 'v')}")

    async def impatient(number: int) -> None:
        try:
            async for _ in gateway.stub.Pull(request, timeout=0.002 * (number % 20) + 0.001):
                pass
        except errors.DeadlineExceeded:
            pass

    for _ in range(3):
        await asyncio.gather(*(impatient(number) for number in range(CLIENTS)))

    result = await gateway.pull(request.reference)
    assert result.manifest == built.raw
    assert gateway.blob_path(Digest.of(data)).read_bytes() == data
    assert gateway.unfinished() == set()


async def test_memory_stays_flat_while_large_blobs_pass_through(
    short_directory: Path, registry: RunningRegistry, deletable_registry: RunningRegistry
) -> None:
    data = random_bytes(MIB, time.time_ns()) * 160
    path, target = (
        one.new_repository().partition("/")[2] for one in (registry, deletable_registry)
    )
    reference = f"{registry.host}/{upload(registry.url, path, build_image(data), 'v')}"
    copy = f"{deletable_registry.host}/{target}:v"

    async with run_gateway_process(short_directory) as (process, stub):
        async for _ in stub.Pull(pb.PullRequest(reference=reference)):
            pass
        async for _ in stub.PushImage(pb.PushImageRequest(source=reference, reference=copy)):
            pass
        read = 0
        async for piece in stub.ReadBlob(pb.ReadBlobRequest(digest=Digest.of(data))):
            read += len(piece.data)
        peak = peak_memory(process.pid)

    assert read == len(data)
    assert peak < 130 * MIB
