"""A damaged layer whose blob is lost too comes back from the registry, through the gateway."""

from pathlib import Path

from lns.materializer.v1 import materializer_service_pb2 as pb

from services.chassis.settings import PeerSettings
from services.materializer.settings import MaterializerSettings
from tests.support.gateway import run_gateway
from tests.support.images import Built, upload
from tests.support.materializer import BlobDirectory, served
from tests.support.registry import RunningRegistry
from tests.support.tars import archive, entry


def built(home: Path) -> Built:
    """An image with right diffIDs."""
    blobs = BlobDirectory(home)
    manifest = blobs.image(archive(entry(b"file", b"content " * 1000)))
    data = {path.name: path.read_bytes() for path in blobs.path.iterdir()}
    raw = data.pop(manifest.hex)
    digests = {blobs.put(one): one for one in data.values()}
    return Built(raw=raw, media_type="application/vnd.oci.image.manifest.v1+json", blobs=digests)


async def test_a_lost_blob_is_pulled_again_for_a_repair(
    short_directory: Path, tmp_path: Path, registry: RunningRegistry
) -> None:
    image = built(tmp_path)
    repository = registry.new_repository()
    path = repository.removeprefix(f"{registry.host}/")
    upload(f"http://{registry.host}", path, image, "it")
    settings = MaterializerSettings(
        registry_gateway=PeerSettings(target=f"unix:{short_directory}/gateway.sock")
    )
    async with run_gateway(short_directory) as gateway, served(short_directory, settings) as client:
        await gateway.pull(f"{registry.host}/{path}:it")
        made = (await client.materialize(image.digest)).image
        pack = client.home / made.layers[0].objects_path
        pack.chmod(0o644)
        pack.write_bytes(pack.read_bytes().replace(b"content", b"CONTENT", 1))
        gateway.blob_path(made.layers[0].blob_digest).unlink()

        request = pb.VerifyImageRequest(image=made.composefs_digest, repair=True)
        repaired = await client.stub.VerifyImage(request)
        request.repair = False
        after = await client.stub.VerifyImage(request)

    assert [(one.path, one.repaired) for one in repaired.damages] == [("/file", True)]
    assert not after.damages
