"""Work that is interrupted: by a kill at every stage, by a disk that is full."""

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lns.materializer.v1 import materializer_service_pb2 as pb
from lns.materializer.v1 import materializer_service_pb2_grpc as rpc

from services.chassis.channel import open_channel
from services.chassis.settings import PeerSettings
from services.core import errors
from services.materializer.layers.entries import parse_entries
from tests.support.eventually import eventually
from tests.support.materializer import BlobDirectory, served
from tests.support.processes import serving, started
from tests.support.tars import archive, entry

SMALL = archive(entry(b"small", b"s" * 5000))
LARGE = archive(entry(b"large", random.Random(3).randbytes(40 << 20)))  # noqa: S311 - test data


def begun(home: Path) -> bool:
    return any((home / "materializer" / "work").iterdir())


def writing(home: Path) -> bool:
    packs = (home / "materializer" / "work").glob("*/objects.erofs")
    return any(pack.stat().st_size > 1 << 20 for pack in packs)


def one_layer_there(home: Path) -> bool:
    return any((home / "layers").iterdir())


def composing(home: Path) -> bool:
    """The moment is short; who misses it kills right behind it."""
    return any((home / "materializer" / "work").glob("*/image.cfs")) or image_there(home)


def image_there(home: Path) -> bool:
    return any((home / "images").iterdir())


@pytest.mark.parametrize("stage", [begun, writing, one_layer_there, composing, image_there])
async def test_a_kill_at_any_stage_leaves_nothing_half_done(
    short_directory: Path, stage: Callable[[Path], bool]
) -> None:
    manifest = BlobDirectory(short_directory).image(SMALL, LARGE)
    environment = {"LNS_HOME": str(short_directory)}
    peer = PeerSettings(target=f"unix:{short_directory}/run/materializer.sock")
    async with started("services.materializer", environment=environment) as process:
        await serving(peer)
        async with open_channel(peer, pb.DESCRIPTOR) as channel:
            stub = rpc.MaterializerServiceStub(channel)
            call = stub.Materialize(pb.MaterializeRequest(manifest_digest=manifest))
            await eventually(lambda: _raced(stage, short_directory), within=30)
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
            call.cancel()

    for layer in (short_directory / "layers").iterdir():
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


def _raced(stage: Callable[[Path], bool], home: Path) -> bool:
    """Whether a stage is reached; files vanish while they are looked at."""
    try:
        return stage(home)
    except FileNotFoundError:
        return False


@pytest.fixture
def small_disk(short_directory: Path) -> Iterator[Path]:
    """A state directory on a disk of 16 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", short_directory], check=True)
    yield short_directory
    subprocess.run(["umount", short_directory], check=True)


async def test_a_full_disk_is_said_and_leaves_nothing(small_disk: Path) -> None:
    zeros = archive(*(entry(b"%d" % i, b"%d" % i * 300_000) for i in range(200)))
    async with served(small_disk) as client:
        manifest = client.blobs.image(SMALL, zeros)

        with pytest.raises(errors.CapacityExhausted) as caught:
            await client.materialize(manifest)

        assert caught.value.hint
        assert client.stored()["materializer/work"] == []
        assert client.stored()["images"] == []
        assert (await client.materialize(client.blobs.image(SMALL))).image.composefs_digest
