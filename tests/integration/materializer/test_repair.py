"""A damaged layer whose blob is no good either comes back from the registry, by the gateway."""

import contextlib
import gzip
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from lns.materializer.v1 import materializer_service_pb2 as pb

from services.chassis.settings import PeerSettings
from services.core.artifacts.families import KNOWLEDGE
from services.core.descriptor import OCI_MANIFEST
from services.core.digest import Digest
from services.core.errors import ContentCorrupt
from services.materializer.settings import MaterializerSettings
from tests.support.fault_proxy import FaultProxy, Kind, Match
from tests.support.faults import error_answer
from tests.support.gateway import RunningGateway, run_gateway
from tests.support.images import Built, upload
from tests.support.materializer import BlobDirectory, Client, served
from tests.support.registry import RunningRegistry
from tests.support.tars import archive, entry

BLOBS = Match(method="GET", kind=Kind.BLOB)


def image(blobs: BlobDirectory) -> Digest:
    """An image of two layers with right diffIDs."""
    return blobs.image(
        archive(entry(b"file", b"content " * 1000)), archive(entry(b"other", b"another " * 1000))
    )


def knowledge(blobs: BlobDirectory) -> Digest:
    """An artifact of one layer."""
    layer = gzip.compress(archive(entry(b"note", b"content of it " * 1000)))
    return blobs.artifact(KNOWLEDGE, {}, layer)


def built(home: Path, make: Callable[[BlobDirectory], Digest]) -> Built:
    """What `make` puts into a directory, to be uploaded."""
    blobs = BlobDirectory(home)
    manifest = make(blobs)
    data = {path.name: path.read_bytes() for path in blobs.path.iterdir()}
    raw = data.pop(manifest.hex)
    digests = {blobs.put(one): one for one in data.values()}
    return Built(raw=raw, media_type=OCI_MANIFEST, blobs=digests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Gateway and materializer over one store, with an image of a registry behind a proxy.

    Attributes:
        image: two layers, and a mount.
        mounted: the blob of the mount.
    """

    gateway: RunningGateway
    materializer: Client
    proxy: FaultProxy
    image: pb.Image
    mounted: Digest

    def blob(self, number: int) -> Path:
        """The blob of a layer."""
        return self.gateway.blob_path(self.image.layers[number].blob_digest)

    def damage_pack(self, number: int) -> None:
        """Changes a byte of the content of a layer's file."""
        pack = self.materializer.home / self.image.layers[number].objects_path
        data = pack.read_bytes()
        pack.chmod(0o644)
        pack.write_bytes(data.replace(b"content ", b"CONTENT ", 1).replace(b"anot", b"ANOT", 1))

    async def verify(self, *, repair: bool) -> list[tuple[str, bool, str]]:
        """What is damaged: path, whether it was repaired, and the message about it."""
        request = pb.VerifyImageRequest(image=self.image.composefs_digest, repair=repair)
        found = await self.materializer.stub.VerifyImage(request)
        return [(one.path, one.repaired, one.description) for one in found.damages]


@pytest.fixture
async def node(
    short_directory: Path, tmp_path: Path, registry: RunningRegistry
) -> AsyncIterator[Node]:
    parts = [built(tmp_path / make.__name__, make) for make in (image, knowledge)]
    paths = [registry.new_repository().removeprefix(f"{registry.host}/") for _ in parts]
    for path, part in zip(paths, parts, strict=True):
        upload(f"http://{registry.host}", path, part, "it")
    mount = pb.Mount(family="knowledge", manifest_digest=parts[1].digest, path="/data")
    settings = MaterializerSettings(
        registry_gateway=PeerSettings(target=f"unix:{short_directory}/gateway.sock")
    )
    async with contextlib.AsyncExitStack() as stack:
        proxy = stack.enter_context(FaultProxy(registry.host))
        gateway = await stack.enter_async_context(run_gateway(short_directory))
        materializer = await stack.enter_async_context(served(short_directory, settings))
        for path in paths:
            await gateway.pull(f"{proxy.host}/{path}:it")
        made = (await materializer.materialize(parts[0].digest, mount)).image
        proxy.forget()
        yield Node(
            gateway=gateway,
            materializer=materializer,
            proxy=proxy,
            image=made,
            mounted=next(digest for digest, data in parts[1].blobs.items() if data[:1] != b"{"),
        )


def damaged(blob: Path, at: float) -> None:
    """Changes a byte of a blob; `at` is where, from 0 (its first) to 1 (its last)."""
    data = bytearray(blob.read_bytes())
    data[int((len(data) - 1) * at)] ^= 0x40
    blob.chmod(0o644)
    blob.write_bytes(data)


async def test_a_damaged_pack_is_made_again_without_the_registry(node: Node) -> None:
    node.damage_pack(0)

    repaired = await node.verify(repair=True)

    assert [(path, done) for path, done, _ in repaired] == [("/file", True)]
    assert await node.verify(repair=False) == []
    assert not node.proxy.requests


async def test_a_lost_blob_is_pulled_again_for_a_repair(node: Node) -> None:
    node.damage_pack(0)
    node.blob(0).unlink()

    repaired = await node.verify(repair=True)

    assert [(path, done) for path, done, _ in repaired] == [("/file", True)]
    assert await node.verify(repair=False) == []


@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.9, 1.0])
async def test_a_damaged_blob_is_pulled_again_for_a_repair(node: Node, at: float) -> None:
    whole = node.blob(0).read_bytes()
    node.damage_pack(0)
    damaged(node.blob(0), at)

    repaired = await node.verify(repair=True)

    assert [(path, done) for path, done, _ in repaired] == [("/file", True)]
    assert await node.verify(repair=False) == []
    assert node.blob(0).read_bytes() == whole
    assert node.proxy.count(BLOBS) == 1, "what is whole is not pulled again"


async def test_every_damaged_blob_is_pulled_again_once(node: Node) -> None:
    for number in (0, 1):
        node.damage_pack(number)
        damaged(node.blob(number), 0.5)

    repaired = await node.verify(repair=True)

    assert {(path, done) for path, done, _ in repaired} == {("/file", True), ("/other", True)}
    assert await node.verify(repair=False) == []
    assert node.proxy.count(BLOBS) == 2


async def test_a_damaged_blob_of_a_mount_is_pulled_again_too(node: Node) -> None:
    node.damage_pack(2)
    damaged(node.gateway.blob_path(node.mounted), 0.5)

    repaired = await node.verify(repair=True)

    assert [(path, done) for path, done, _ in repaired] == [("/data/note", True)]
    assert await node.verify(repair=False) == []
    assert node.proxy.count(BLOBS) == 1


async def test_what_the_registry_does_not_give_back_says_why_and_keeps_nothing_else_damaged(
    node: Node,
) -> None:
    for number in (0, 1):
        node.damage_pack(number)
    damaged(node.blob(0), 0.5)
    node.proxy.script(BLOBS, error_answer(404, "BLOB_UNKNOWN"))

    found = {path: (done, said) for path, done, said in await node.verify(repair=True)}

    assert found["/other"][0], "its blob is whole"
    assert not found["/file"][0]
    assert "it could not be repaired" in found["/file"][1]
    assert "does not exist" in found["/file"][1]


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
async def test_a_blob_damaged_before_its_layer_was_made_is_pulled_again(
    node: Node, at: float
) -> None:
    await node.materializer.stub.PruneImages(pb.PruneImagesRequest())
    damaged(node.blob(0), at)

    made = await node.materializer.materialize(node.image.manifest_digest)

    assert [one.diff_id for one in made.image.layers] == [
        one.diff_id for one in node.image.layers[:2]
    ]
    assert node.proxy.count(BLOBS) == 1


async def test_a_damaged_blob_that_does_not_come_back_is_named_and_nothing_is_made(
    node: Node,
) -> None:
    await node.materializer.stub.PruneImages(pb.PruneImagesRequest())
    damaged(node.blob(0), 0.5)
    node.proxy.script(BLOBS, error_answer(404, "BLOB_UNKNOWN"))

    with pytest.raises(ContentCorrupt) as caught:
        await node.materializer.materialize(node.image.manifest_digest)

    blob = node.image.layers[0].blob_digest
    assert f"the blob {blob} is damaged in the store" in caught.value.message
    assert "cannot be pulled again" in caught.value.message
    assert node.materializer.stored()["images"] == []
