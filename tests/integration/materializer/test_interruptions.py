"""Work that is interrupted: by a kill at every stage, by a disk that is full."""

import os
import random
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from lns.materializer.v1 import materializer_service_pb2 as pb
from lns.materializer.v1 import materializer_service_pb2_grpc as rpc

from services.chassis.channel import open_channel
from services.chassis.settings import PeerSettings
from services.core import errors
from services.materializer.layers.entries import parse_entries
from tests.support.materializer import BlobDirectory, served
from tests.support.processes import killed_at, serving, started
from tests.support.tars import archive, entry

SMALL = archive(entry(b"small", b"s" * 5000))
LARGE = archive(entry(b"large", random.Random(3).randbytes(8 << 20)))  # noqa: S311 - test data


POINTS = {
    # event, path, how many come before: layers and images in their places then
    "before any work": (("os.mkdir", "*/work/*", 0), [0], 0),
    "before a pack": (("open", "*/work/*/objects.erofs", 0), [0], 0),
    "in the middle of a pack": (("grown", "*/work/*/objects.erofs", 0), [0, 1], 0),
    "before a pack is synced": (("open", "*/work/*/objects.erofs", 1), [0], 0),
    "before a layer is in its place": (("os.rename", "*/layers/*", 0), [0], 0),
    "before the second layer is": (("os.rename", "*/layers/*", 1), [1], 0),
    "before the image is composed": (("open", "*/work/*/image.cfs", 0), [2], 0),
    "before the image is in its place": (("os.rename", "*/images/*.cfs", 0), [2], 0),
    "before the image is recorded": (("open", "*/images", 0), [2], 1),
    "before the end": (("shutil.rmtree", "*/work/*", 2), [2], 1),
}


@pytest.mark.parametrize(("point", "layers", "images"), POINTS.values(), ids=POINTS)
async def test_a_kill_at_any_point_leaves_nothing_half_done(
    short_directory: Path, point: tuple[str, str, int], layers: Sequence[int], images: int
) -> None:
    manifest = BlobDirectory(short_directory).image(SMALL, LARGE)
    peer = PeerSettings(target=f"unix:{short_directory}/run/materializer.sock")
    environment = {"LNS_HOME": str(short_directory), **killed_at(*point)}
    async with started("services.materializer", environment=environment) as process:
        await serving(peer)
        async with open_channel(peer, pb.DESCRIPTOR) as channel:
            stub = rpc.MaterializerServiceStub(channel)
            with pytest.raises(errors.ServiceUnavailable):
                async for _ in stub.Materialize(pb.MaterializeRequest(manifest_digest=manifest)):
                    pass
        assert await process.wait() == -signal.SIGKILL

    there = list((short_directory / "layers").iterdir())
    assert len(there) in layers
    assert len(list((short_directory / "images").iterdir())) == images
    for layer in there:
        assert list(parse_entries((layer / "entries").read_bytes()))
    async with served(short_directory) as client:
        assert client.stored()["materializer/work"] == []
        recorded = (await client.stub.ListImages(pb.ListImagesRequest())).images
        assert len(client.stored()["images"]) == len(recorded)
        made = await client.materialize(manifest)
        found = await client.stub.VerifyImage(
            pb.VerifyImageRequest(image=made.image.composefs_digest)
        )
        assert (found.object_count, list(found.damages)) == (2, [])


@pytest.fixture
def small_disk(short_directory: Path) -> Iterator[Path]:
    """A state directory on a disk of 16 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", short_directory], check=True)
    yield short_directory
    subprocess.run(["umount", short_directory], check=True)


async def test_a_full_disk_is_reported_and_leaves_nothing(small_disk: Path) -> None:
    zeros = archive(*(entry(b"%d" % i, b"%d" % i * 300_000) for i in range(200)))
    async with served(small_disk) as client:
        manifest = client.blobs.image(SMALL, zeros)

        with pytest.raises(errors.CapacityExhausted) as caught:
            await client.materialize(manifest)

        assert caught.value.hint
        assert client.stored()["materializer/work"] == []
        assert client.stored()["images"] == []
        assert (await client.materialize(client.blobs.image(SMALL))).image.composefs_digest
