"""Images go through the gateway byte for byte: pull, push, copy, tag, delete, inspect."""

import asyncio
import gzip
import io
import json
import lzma
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from lns.registry.v1 import registry_service_pb2 as pb
from lns.types.v1 import usage_pb2

from services.core import errors
from services.core.descriptor import DOCKER_INDEX, DOCKER_MANIFEST, OCI_MANIFEST
from services.core.digest import Digest
from tests.support.fault_proxy import FaultProxy, Kind, Match
from tests.support.faults import Hold, error_answer
from tests.support.gateway import RunningGateway, run_gateway
from tests.support.images import (
    Built,
    blob_in,
    build_image,
    build_index,
    delete_blob,
    manifest_in,
    random_bytes,
    upload,
    write_layout,
)
from tests.support.registry import RunningRegistry

ARM = {"os": "linux", "architecture": "arm64"}
AMD = {"os": "linux", "architecture": "amd64"}
GET_BLOB = Match(method="GET", kind=Kind.BLOB)
MIB = 1 << 20


def fresh(size: int = 1000) -> bytes:
    return random_bytes(size, time.time_ns())


def new_path(registry: RunningRegistry) -> str:
    return registry.new_repository().partition("/")[2]


@pytest.fixture
def image(registry: RunningRegistry) -> tuple[Built, str]:
    """An image in the registry and its reference."""
    built = build_image(fresh(200_000), fresh(), indent=2)
    return built, f"{registry.host}/{upload(registry.url, new_path(registry), built, 'v1')}"


@pytest.fixture
def multi(registry: RunningRegistry) -> tuple[Built, str]:
    """An index of two platforms in the registry and its reference."""
    shared = fresh(100_000)
    built = build_index(
        ("amd64", build_image(shared, fresh())),
        ("arm64", build_image(shared, fresh(), architecture="arm64")),
    )
    return built, f"{registry.host}/{upload(registry.url, new_path(registry), built, 'v1')}"


def platform_manifest(index: Built, architecture: str) -> Built:
    return index.children[["amd64", "arm64"].index(architecture)]


# Pulling


async def test_a_pull_keeps_manifest_config_and_layers_byte_for_byte(
    gateway: RunningGateway, image: tuple[Built, str]
) -> None:
    built, reference = image

    result = await gateway.pull(reference)

    assert result.manifest == built.raw
    assert result.reference == reference
    assert result.root == result.descriptor
    assert (result.descriptor.digest, result.descriptor.size_bytes) == (
        built.digest,
        len(built.raw),
    )
    assert result.transferred_bytes == sum(map(len, built.blobs.values()))
    assert gateway.stored() == {built.digest, *built.blobs}
    for digest, data in {**built.blobs, built.digest: built.raw}.items():
        path = gateway.blob_path(digest)
        assert path.read_bytes() == data
        assert path.stat().st_mode & 0o777 == 0o444


async def test_progress_comes_first_for_every_blob_and_the_result_last(
    gateway: RunningGateway, image: tuple[Built, str]
) -> None:
    built, reference = image

    *steps, last = await gateway.pull_events(reference)

    assert last.WhichOneof("event") == "result"
    assert all(step.WhichOneof("event") == "progress" for step in steps)
    final = {step.progress.digest: step.progress for step in steps}
    assert set(final) == set(built.blobs)
    for digest, data in built.blobs.items():
        assert final[digest].stage == usage_pb2.STAGE_DONE
        assert final[digest].done_bytes == final[digest].total_bytes == len(data)


async def test_a_second_pull_transfers_nothing(
    gateway: RunningGateway, proxy: FaultProxy, image: tuple[Built, str]
) -> None:
    built, reference = image
    reference = reference.replace(reference.partition("/")[0], proxy.host)
    await gateway.pull(reference)
    proxy.forget()

    result = await gateway.pull(reference)

    assert (result.transferred_bytes, result.existing_blobs) == (0, len(built.blobs))
    assert [one.method for one in proxy.requests] == ["HEAD"]


async def test_a_digest_that_the_store_has_is_answered_without_the_registry(
    gateway: RunningGateway, proxy: FaultProxy, image: tuple[Built, str]
) -> None:
    built, reference = image
    repository = reference.rpartition(":")[0].replace(reference.partition("/")[0], proxy.host)
    pinned = f"{repository}@{built.digest}"
    await gateway.pull(pinned)
    proxy.forget()

    with proxy.refusing():
        result = await gateway.pull(pinned)
        got = await gateway.call("GetManifest", reference=pinned, include_config=True)

    assert result.manifest == got.manifest == built.raw
    assert Digest.of(got.config) in built.blobs
    assert proxy.requests == ()


async def test_a_moved_tag_is_followed_and_its_old_blobs_are_shared(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    base = fresh(50_000)
    path = new_path(registry)
    old, new = build_image(base, fresh()), build_image(base, fresh())
    upload(registry.url, path, old, "v1")
    await gateway.pull(f"{registry.host}/{path}:v1")
    upload(registry.url, path, new, "v1")

    result = await gateway.pull(f"{registry.host}/{path}:v1")

    assert result.manifest == new.raw
    assert result.existing_blobs == 1
    (kept,) = (await gateway.call("ListStoredImages")).images
    assert kept.descriptor.digest == new.digest


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
async def test_an_index_is_followed_to_the_platform_that_is_wanted(
    gateway: RunningGateway, multi: tuple[Built, str], architecture: str
) -> None:
    index, reference = multi
    wanted = platform_manifest(index, architecture)

    result = await gateway.pull(reference, platform={"os": "linux", "architecture": architecture})

    assert result.manifest == wanted.raw
    assert result.root.digest == index.digest
    assert result.descriptor.digest == wanted.digest
    assert gateway.stored() == {index.digest, wanted.digest, *wanted.blobs}
    (kept,) = (await gateway.call("ListStoredImages")).images
    assert kept.descriptor.digest == index.digest
    assert kept.platform_manifest.digest == wanted.digest


async def test_a_pinned_index_is_followed_too(
    gateway: RunningGateway, multi: tuple[Built, str]
) -> None:
    index, reference = multi
    pinned = f"{reference.rpartition(':')[0]}@{index.digest}"

    result = await gateway.pull(pinned, platform=ARM)

    assert result.manifest == platform_manifest(index, "arm64").raw


async def test_all_platforms_are_pulled_where_that_is_asked_for(
    gateway: RunningGateway, multi: tuple[Built, str]
) -> None:
    index, reference = multi

    await gateway.pull(reference, all_platforms=True)

    children = {child.digest for child in index.children}
    assert gateway.stored() == {index.digest, *children, *index.all_blobs}


async def test_all_platforms_are_pulled_also_where_ours_is_not_among_them(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    index = build_index(("riscv64", build_image(fresh(), architecture="riscv64")))
    reference = f"{registry.host}/{upload(registry.url, new_path(registry), index, 'v1')}"
    with pytest.raises(errors.PlatformUnsupported):
        await gateway.pull(reference)

    for mode in (pb.PULL_MODE_ALWAYS, pb.PULL_MODE_NEVER):
        result = await gateway.pull(reference, all_platforms=True, mode=mode)
        assert (result.root, result.manifest) == (result.descriptor, index.raw)

    assert gateway.stored() == {index.digest, index.children[0].digest, *index.all_blobs}
    with pytest.raises(errors.RequestInvalid):
        await gateway.pull(reference, all_platforms=True, platform=AMD)


async def test_a_platform_that_is_not_offered_is_refused_and_the_offers_named(
    gateway: RunningGateway, multi: tuple[Built, str]
) -> None:
    with pytest.raises(errors.PlatformUnsupported) as caught:
        await gateway.pull(multi[1], platform={"os": "linux", "architecture": "s390x"})

    assert "linux/amd64, linux/arm64" in caught.value.message
    assert (await gateway.call("ListStoredImages")).images == []


async def test_an_index_whose_entry_lies_about_a_manifest_is_refused(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    child = build_image(fresh())
    document = json.loads(build_index(("amd64", child)).raw)
    document["manifests"][0]["size"] += 1
    lying = Built(
        raw=json.dumps(document).encode(), media_type=document["mediaType"], children=(child,)
    )
    path = new_path(registry)
    upload(registry.url, path, lying, "v1")

    with pytest.raises(errors.ContentCorrupt):
        await gateway.pull(f"{registry.host}/{path}:v1", platform=AMD)


async def test_docker_manifests_are_pulled_as_they_are(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    document = json.loads(build_image(fresh(), fresh()).raw)
    plain = build_image(fresh())
    document = json.loads(plain.raw) | {"mediaType": DOCKER_MANIFEST}
    document["config"]["mediaType"] = "application/vnd.docker.container.image.v1+json"
    for layer in document["layers"]:
        layer["mediaType"] = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    child = Built(
        raw=json.dumps(document, indent=3).encode(), media_type=DOCKER_MANIFEST, blobs=plain.blobs
    )
    entries = [child.descriptor | {"platform": AMD}]
    listed = Built(
        raw=json.dumps(
            {"schemaVersion": 2, "mediaType": DOCKER_INDEX, "manifests": entries}
        ).encode(),
        media_type=DOCKER_INDEX,
        children=(child,),
    )
    path = new_path(registry)
    upload(registry.url, path, listed, "v1")

    result = await gateway.pull(f"{registry.host}/{path}:v1", platform=AMD)

    assert result.manifest == child.raw
    assert result.root.media_type == DOCKER_INDEX


@pytest.mark.parametrize("mode", [pb.PULL_MODE_MISSING, pb.PULL_MODE_NEVER])
async def test_what_the_store_has_is_not_asked_for_where_that_is_not_wanted(
    gateway: RunningGateway, proxy: FaultProxy, multi: tuple[Built, str], mode: int
) -> None:
    index, reference = multi
    reference = reference.replace(reference.partition("/")[0], proxy.host)
    await gateway.pull(reference, platform=ARM)
    proxy.forget()

    with proxy.refusing():
        result = await gateway.pull(reference, platform=ARM, mode=mode)

    assert result.manifest == platform_manifest(index, "arm64").raw
    assert proxy.requests == ()


async def test_a_pull_that_may_not_ask_fails_where_the_store_lacks_something(
    gateway: RunningGateway, proxy: FaultProxy, image: tuple[Built, str]
) -> None:
    built, reference = image
    reference = reference.replace(reference.partition("/")[0], proxy.host)

    with pytest.raises(errors.ManifestUnknown):
        await gateway.pull(reference, mode=pb.PULL_MODE_NEVER)
    assert proxy.requests == ()

    await gateway.pull(reference)
    gateway.blob_path(max(built.blobs)).unlink()
    with pytest.raises(errors.ManifestUnknown):
        await gateway.pull(reference, mode=pb.PULL_MODE_NEVER)
    await gateway.pull(reference, mode=pb.PULL_MODE_MISSING)
    assert gateway.blob_path(max(built.blobs)).exists()


async def test_a_blob_that_the_registry_lost_is_named(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    # registry:2 refuses such a manifest, so the hole is made by a layer of another repository.
    built = build_image(fresh())
    path = new_path(registry)
    upload(registry.url, path, built, "v1")
    document = json.loads(built.raw)
    absent = Digest.of(fresh())
    with FaultProxy(registry.host) as proxy:
        proxy.script(
            Match(kind=Kind.BLOB, digest=document["layers"][0]["digest"]),
            error_answer(404, "BLOB_UNKNOWN"),
        )
        with pytest.raises(errors.BlobUnknown):
            await gateway.pull(f"{proxy.host}/{path}:v1")

    assert absent not in gateway.stored()
    assert (await gateway.call("ListStoredImages")).images == []


@pytest.mark.parametrize(
    "reference", ["", "UPPER/x", "localhost:1/x:", "a b", "127.0.0.1:1/x@sha256:zz"]
)
async def test_a_reference_that_is_invalid_is_refused(
    gateway: RunningGateway, reference: str
) -> None:
    for name in ("GetManifest", "InspectManifest"):
        with pytest.raises(errors.ReferenceInvalid):
            await gateway.call(name, reference=reference)
    with pytest.raises(errors.ReferenceInvalid):
        await gateway.pull(reference)


async def test_a_tag_or_repository_that_does_not_exist_is_unknown(
    gateway: RunningGateway, image: tuple[Built, str]
) -> None:
    for reference in (
        f"{image[1]}x",
        image[1].replace("/t", "/absent"),
        image[1] + "@" + image[0].digest[:-1] + "0",
    ):
        with pytest.raises(errors.ManifestUnknown):
            await gateway.pull(reference)


async def test_one_blob_asked_for_by_ten_callers_is_fetched_once(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy
) -> None:
    shared = fresh(3 * MIB)
    images = [build_image(shared, fresh()) for _ in range(5)]
    paths = [new_path(registry) for _ in images]
    for path, built in zip(paths, images, strict=True):
        upload(registry.url, path, built, "v1")
    references = [f"{proxy.host}/{path}:v1" for path in paths]

    results = await asyncio.gather(*(gateway.pull(one) for one in references * 2))

    assert [one.manifest for one in results] == [one.raw for one in images] * 2
    for built in images:
        for digest in built.blobs:
            assert proxy.count(Match(method="GET", kind=Kind.BLOB, digest=digest)) == 1


async def test_a_caller_that_leaves_does_not_end_the_transfer_of_others(
    gateway: RunningGateway, proxy: FaultProxy, image: tuple[Built, str]
) -> None:
    built, reference = image
    reference = reference.replace(reference.partition("/")[0], proxy.host)
    hold = Hold()
    proxy.script(GET_BLOB, hold, times=1)
    leaving = asyncio.ensure_future(gateway.pull(reference))
    staying = asyncio.ensure_future(gateway.pull(reference))
    await asyncio.to_thread(hold.gate.wait_for)

    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    hold.gate.open()

    assert (await staying).manifest == built.raw


# Pushing


async def test_a_pulled_image_is_pushed_with_the_same_digest_also_after_its_tag_moved(
    gateway: RunningGateway, registry: RunningRegistry, image: tuple[Built, str]
) -> None:
    built, reference = image
    await gateway.pull(reference)
    path = reference.partition("/")[2].rpartition(":")[0]
    upload(registry.url, path, build_image(fresh()), "v1")
    target = new_path(registry)

    result = await gateway.push_image(reference, f"{registry.host}/{target}:copy")

    assert result.descriptor.digest == built.digest
    assert manifest_in(registry.url, target, "copy") == built.raw
    names = [one.reference for one in (await gateway.call("ListStoredImages")).images]
    assert names == sorted([reference, f"{registry.host}/{target}:copy"])


async def test_an_index_is_pushed_with_all_platforms_or_with_ours(
    gateway: RunningGateway, registry: RunningRegistry, multi: tuple[Built, str]
) -> None:
    index, reference = multi
    await gateway.pull(reference, all_platforms=True)
    whole, ours = new_path(registry), new_path(registry)

    await gateway.push_image(reference, f"{registry.host}/{whole}:v", all_platforms=True)
    await gateway.push_image(reference, f"{registry.host}/{ours}:v")

    assert manifest_in(registry.url, whole, "v") == index.raw
    assert manifest_in(registry.url, ours, "v") == platform_manifest(index, "amd64").raw
    for child in index.children:
        assert manifest_in(registry.url, whole, child.digest) == child.raw


async def test_an_index_that_was_pulled_for_one_platform_lacks_the_others(
    gateway: RunningGateway, registry: RunningRegistry, multi: tuple[Built, str]
) -> None:
    await gateway.pull(multi[1], platform=ARM)

    with pytest.raises(errors.BlobsMissing):
        await gateway.push_image(multi[1], registry.new_repository(), all_platforms=True)

    target = new_path(registry)
    result = await gateway.push_image(multi[1], f"{registry.host}/{target}:v")
    assert result.descriptor.digest == platform_manifest(multi[0], "arm64").digest


async def test_an_image_that_the_store_does_not_have_cannot_be_pushed(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    with pytest.raises(errors.ImageUnknown):
        await gateway.push_image("127.0.0.1:1/absent", registry.new_repository())


async def test_an_image_whose_blob_is_gone_names_what_is_missing(
    gateway: RunningGateway, registry: RunningRegistry, image: tuple[Built, str]
) -> None:
    built, reference = image
    await gateway.pull(reference)
    gone = max(built.blobs)
    gateway.blob_path(gone).unlink()

    with pytest.raises(errors.BlobsMissing) as caught:
        await gateway.push_image(reference, registry.new_repository())

    assert [(v.type, v.subject) for v in caught.value.violations] == [("MISSING", gone)]


async def test_a_push_to_a_digest_must_be_of_that_digest(
    gateway: RunningGateway, registry: RunningRegistry, image: tuple[Built, str]
) -> None:
    built, reference = image
    await gateway.pull(reference)
    target = registry.new_repository()

    result = await gateway.push_image(reference, f"{target}@{built.digest}")
    assert result.descriptor.digest == built.digest
    with pytest.raises(errors.RequestInvalid):
        await gateway.push_image(reference, f"{target}@{Digest.of(b'')}")


async def test_a_blob_that_the_registry_has_is_not_sent(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy, image: tuple[Built, str]
) -> None:
    built, reference = image
    await gateway.pull(reference)
    path = reference.partition("/")[2].rpartition(":")[0]

    result = await gateway.push_image(reference, f"{proxy.host}/{path}:again")

    assert result.transferred_bytes == 0
    assert proxy.count(Match(kind=Kind.UPLOAD)) == 0
    assert proxy.count(Match(method="HEAD", kind=Kind.BLOB)) == len(built.blobs)


async def test_a_blob_of_another_repository_of_the_registry_is_mounted(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy, image: tuple[Built, str]
) -> None:
    built, reference = image
    reference = reference.replace(reference.partition("/")[0], proxy.host)
    await gateway.pull(reference)
    proxy.forget()

    result = await gateway.push_image(reference, f"{proxy.host}/{new_path(registry)}:v")

    assert result.transferred_bytes == 0
    posts = proxy.select(Match(method="POST", kind=Kind.UPLOAD))
    assert [one.status for one in posts] == [201] * len(built.blobs)
    assert proxy.count(Match(method="PUT", kind=Kind.UPLOAD)) == 0


async def test_a_mount_that_the_registry_does_not_do_becomes_an_upload(
    gateway: RunningGateway, deletable_registry: RunningRegistry
) -> None:
    built = build_image(fresh())
    path, target = new_path(deletable_registry), new_path(deletable_registry)
    upload(deletable_registry.url, path, built, "v1")
    with FaultProxy(deletable_registry.host) as proxy:
        await gateway.pull(f"{proxy.host}/{path}:v1")
        for digest in built.blobs:  # the gateway still believes that it has them
            delete_blob(deletable_registry.url, path, digest)
        proxy.forget()

        await gateway.push_image(f"{proxy.host}/{path}:v1", f"{proxy.host}/{target}:v")

        mounts = proxy.select(Match(method="POST", where=lambda r: "mount" in r.query))
        assert [one.status for one in mounts] == [202] * len(built.blobs)
        assert proxy.count(Match(method="DELETE", kind=Kind.UPLOAD)) == len(built.blobs)
    assert manifest_in(deletable_registry.url, target, "v") == built.raw


# Sources outside of the store


async def test_layouts_and_their_archives_are_pushed_as_they_are(
    gateway: RunningGateway, registry: RunningRegistry, tmp_path: Path
) -> None:
    built = build_image(fresh(300_000), fresh(), indent=4)
    write_layout(tmp_path / "layout", built, "v1")
    with tarfile.open(tmp_path / "layout.tar", "w") as archive:
        archive.add(tmp_path / "layout", arcname=".")

    for source in (
        f"oci:{tmp_path}/layout:v1",
        f"oci-archive:{tmp_path}/layout.tar:v1",
        f"oci:{tmp_path}/layout",
        f"oci-archive:{tmp_path}/layout.tar",
    ):
        target = new_path(registry)
        result = await gateway.push_image(source, f"{registry.host}/{target}:v")
        assert result.descriptor.digest == built.digest
        assert manifest_in(registry.url, target, "v") == built.raw


def docker(*arguments: str) -> str:
    """Runs the docker command and returns what it prints."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def docker_image(tmp_path: Path) -> Iterator[str]:
    """An image of two layers in the Docker daemon; yields its name and tag."""
    name = f"lns-test-{time.time_ns()}:v1"
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY one /one\nCOPY two /two\n")
    (tmp_path / "one").write_bytes(fresh(100_000))
    (tmp_path / "two").write_bytes(b"two" * 1000)
    environment = os.environ | {"DOCKER_BUILDKIT": "0"}
    subprocess.run(
        ["docker", "build", "-q", "-t", name, str(tmp_path)],
        env=environment,
        check=True,
        capture_output=True,
    )
    yield name
    docker("image", "rm", "-f", name)


def check_docker_image(registry: RunningRegistry, path: str, name: str) -> None:
    """The pushed image has the config of the daemon's and layers that unpack to its diff ids."""
    manifest = json.loads(manifest_in(registry.url, path, "v"))
    config = blob_in(registry.url, path, manifest["config"]["digest"])
    wanted = json.loads(docker("image", "inspect", name))[0]
    assert f"sha256:{manifest['config']['digest'][7:]}" == wanted["Id"]
    unpacked = [
        str(Digest.of(gzip.decompress(blob_in(registry.url, path, layer["digest"]))))
        for layer in manifest["layers"]
    ]
    assert unpacked == json.loads(config)["rootfs"]["diff_ids"] == wanted["RootFS"]["Layers"]


async def test_an_image_of_a_docker_daemon_is_pushed(
    short_directory: Path, registry: RunningRegistry, docker_image: str
) -> None:
    socket = Path("/var/run/docker.sock")
    target = new_path(registry)
    async with run_gateway(short_directory, docker_socket=socket) as gateway:
        await gateway.push_image(f"docker-daemon:{docker_image}", f"{registry.host}/{target}:v")
        with pytest.raises(errors.ImageUnknown):
            await gateway.push_image("docker-daemon:lns-absent:v9", registry.new_repository())
        assert list((gateway.home / "gateway" / "temporary").iterdir()) == []

    await asyncio.to_thread(check_docker_image, registry, target, docker_image)


async def test_an_archive_of_docker_save_is_pushed_always_with_the_same_digest(
    gateway: RunningGateway, registry: RunningRegistry, tmp_path: Path, docker_image: str
) -> None:
    archive = tmp_path / "saved.tar"
    await asyncio.to_thread(docker, "save", "-o", str(archive), docker_image)
    first, second = new_path(registry), new_path(registry)

    one = await gateway.push_image(
        f"docker-archive:{archive}:{docker_image}", f"{registry.host}/{first}:v"
    )
    two = await gateway.push_image(f"docker-archive:{archive}", f"{registry.host}/{second}:v")

    assert one.descriptor == two.descriptor
    await asyncio.to_thread(check_docker_image, registry, first, docker_image)
    with pytest.raises(errors.ImageUnknown) as caught:
        await gateway.push_image(f"docker-archive:{archive}:other:v1", registry.new_repository())
    assert docker_image in caught.value.message


async def test_without_a_docker_daemon_the_error_names_its_socket(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    with pytest.raises(errors.RequestInvalid) as caught:
        await gateway.push_image("docker-daemon:debian:12", registry.new_repository())

    assert str(gateway.settings.docker_socket) in caught.value.message


def save_archive(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> None:
    """Writes a tar file as docker save would, hostile where the test wants it."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)


LAYER = b"layer" * 1000
CONFIG = json.dumps({"rootfs": {"type": "layers", "diff_ids": [Digest.of(LAYER)]}}).encode()
SAVED = {
    "manifest.json": b'[{"Config": "c.json", "RepoTags": ["a:v"], "Layers": ["l/layer.tar"]}]',
    "c.json": CONFIG,
    "l/layer.tar": LAYER,
}
ODD_ARCHIVES: list[tuple[str, dict[str, bytes], dict[str, str], type[errors.LnsError] | None]] = [
    ("as saved", {}, {}, None),
    ("a gzipped layer", {"l/layer.tar": gzip.compress(LAYER)}, {}, None),
    ("a link to a layer", {"l/layer.tar": b"", "x": LAYER}, {"l/layer.tar": "../x"}, None),
    ("another layer", {"l/layer.tar": LAYER + b"x"}, {}, errors.ContentCorrupt),
    ("a layer in zstd", {"l/layer.tar": zstandard.compress(LAYER)}, {}, None),
    ("a layer in xz", {"l/layer.tar": lzma.compress(LAYER)}, {}, None),
    ("a broken gzip layer", {"l/layer.tar": b"\x1f\x8bx"}, {}, errors.ContentCorrupt),
    ("no manifest", {"manifest.json": b""}, {}, errors.RequestInvalid),
    ("a manifest that is no list", {"manifest.json": b"{}"}, {}, errors.RequestInvalid),
    ("deep json", {"manifest.json": b"[" * 100_000}, {}, errors.RequestInvalid),
    ("two manifests in one", {"manifest.json": b'[],"images":[]'}, {}, errors.RequestInvalid),
    ("no images", {"manifest.json": b"[]"}, {}, errors.RequestInvalid),
    ("an image that is a number", {"manifest.json": b"[7]"}, {}, errors.RequestInvalid),
    ("a config that is a list", {"c.json": b"[]"}, {}, errors.RequestInvalid),
    ("a config without layers", {"c.json": b"{}"}, {}, errors.RequestInvalid),
    ("a config with odd ids", {"c.json": CONFIG.replace(b"sha256:", b"../")}, {}, errors.LnsError),
    ("a layer outside", {"l/layer.tar": b""}, {"l/layer.tar": "/etc/passwd"}, errors.LnsError),
]


@pytest.mark.parametrize(
    ("name", "changes", "links", "expected"), ODD_ARCHIVES, ids=[row[0] for row in ODD_ARCHIVES]
)
async def test_archives_are_read_as_what_they_are_or_refused(
    gateway: RunningGateway,
    registry: RunningRegistry,
    tmp_path: Path,
    name: str,
    changes: dict[str, bytes],
    links: dict[str, str],
    expected: type[errors.LnsError] | None,
) -> None:
    files = {key: data for key, data in (SAVED | changes).items() if key not in links}
    save_archive(tmp_path / "saved.tar", files, links)
    source, target = f"docker-archive:{tmp_path}/saved.tar", new_path(registry)

    if expected is None:
        await gateway.push_image(source, f"{registry.host}/{target}:v")
        (layer,) = json.loads(manifest_in(registry.url, target, "v"))["layers"]
        assert gzip.decompress(blob_in(registry.url, target, layer["digest"])) == LAYER
    else:
        with pytest.raises(expected):
            await gateway.push_image(source, f"{registry.host}/{target}:v")
    assert list((gateway.home / "gateway" / "temporary").iterdir()) == []


@pytest.mark.parametrize("program", ["gzip", "bzip2", "xz", "zstd"])
async def test_a_compressed_archive_is_pushed_with_the_digest_of_the_plain_one(
    gateway: RunningGateway, registry: RunningRegistry, tmp_path: Path, program: str
) -> None:
    plain, packed = tmp_path / "saved.tar", tmp_path / "packed"
    save_archive(plain, SAVED)
    with packed.open("wb") as output:
        await asyncio.to_thread(
            subprocess.run, [program, "-c", str(plain)], stdout=output, check=True
        )

    one = await gateway.push_image(f"docker-archive:{plain}", registry.new_repository())
    two = await gateway.push_image(f"docker-archive:{packed}:a:v", registry.new_repository())

    assert one.descriptor == two.descriptor
    assert list((gateway.home / "gateway" / "temporary").iterdir()) == []


async def test_a_compressed_layout_is_pushed_as_it_is(
    gateway: RunningGateway, registry: RunningRegistry, tmp_path: Path
) -> None:
    built = build_image(fresh(300_000), fresh(), indent=4)
    write_layout(tmp_path / "layout", built, "v1")
    with tarfile.open(tmp_path / "layout.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "layout", arcname=".")

    result = await gateway.push_image(
        f"oci-archive:{tmp_path}/layout.tar.gz:v1", registry.new_repository()
    )

    assert result.descriptor.digest == built.digest


DAMAGED_ARCHIVES = [
    ("cut off", lambda data: gzip.compress(data)[:-20], errors.ContentCorrupt),
    ("cut off in zstd", lambda data: zstandard.compress(data)[:-40], errors.LnsError),
    ("changed", lambda data: gzip.compress(data)[:-6] + b"\0" * 6, errors.ContentCorrupt),
    ("not an archive inside", lambda _: gzip.compress(b"text" * 1000), errors.RequestInvalid),
    ("nothing inside", lambda _: gzip.compress(b""), errors.RequestInvalid),
    ("compressed twice", lambda d: gzip.compress(gzip.compress(d)), errors.RequestInvalid),
]


@pytest.mark.parametrize(
    ("name", "damage", "expected"), DAMAGED_ARCHIVES, ids=[row[0] for row in DAMAGED_ARCHIVES]
)
async def test_a_compressed_archive_that_is_damaged_is_refused(
    gateway: RunningGateway,
    registry: RunningRegistry,
    tmp_path: Path,
    name: str,
    damage: Callable[[bytes], bytes],
    expected: type[errors.LnsError],
) -> None:
    archive = tmp_path / "saved.tar"
    save_archive(archive, SAVED)
    archive.write_bytes(damage(archive.read_bytes()))

    with pytest.raises(expected) as caught:
        await gateway.push_image(f"docker-archive:{archive}", registry.new_repository())

    assert str(archive) in caught.value.message
    assert list((gateway.home / "gateway" / "temporary").iterdir()) == []


async def test_an_archive_that_expands_without_end_is_refused(
    gateway: RunningGateway, registry: RunningRegistry, tmp_path: Path
) -> None:
    bomb = zstandard.compress(bytes(16 << 20)) * 128
    (tmp_path / "bomb").write_bytes(bomb)

    with pytest.raises(errors.RequestInvalid, match="a bomb"):
        await gateway.push_image(f"docker-archive:{tmp_path}/bomb", registry.new_repository())

    assert list((gateway.home / "gateway" / "temporary").iterdir()) == []


async def test_a_layout_of_skopeo_is_pushed_with_its_digest(
    gateway: RunningGateway, registry: RunningRegistry, tmp_path: Path, image: tuple[Built, str]
) -> None:
    built, reference = image
    skopeo = shutil.which("skopeo")
    assert skopeo, "skopeo is missing; scripts/setup/apt test installs it"
    for kind in ("oci", "oci-archive"):
        place = f"{kind}:{tmp_path}/{kind}:v1"
        await asyncio.to_thread(
            subprocess.run,
            [
                skopeo,
                "copy",
                "-q",
                "--preserve-digests",
                "--src-tls-verify=false",
                f"docker://{reference}",
                place,
            ],
            check=True,
        )
        result = await gateway.push_image(place, registry.new_repository())
        assert result.descriptor.digest == built.digest


async def test_an_index_of_a_layout_is_pushed_with_all_platforms_or_with_ours(
    gateway: RunningGateway, registry: RunningRegistry, tmp_path: Path
) -> None:
    index = build_index(
        ("amd64", build_image(fresh())), ("arm64", build_image(fresh(), architecture="arm64"))
    )
    write_layout(tmp_path, index, "v1")

    whole = await gateway.push_image(
        f"oci:{tmp_path}:v1", registry.new_repository(), all_platforms=True
    )
    ours = await gateway.push_image(f"oci:{tmp_path}:v1", registry.new_repository())

    assert whole.descriptor.digest == index.digest
    assert ours.descriptor.digest == index.children[0].digest


BROKEN_SOURCES = [
    ("oci:relative/path", errors.RequestInvalid),
    ("oci:", errors.RequestInvalid),
    ("oci:/absent/dir", errors.RequestInvalid),
    ("docker-archive:", errors.RequestInvalid),
    ("oci:{empty}", errors.RequestInvalid),
    ("oci:{layout}:other", errors.ImageUnknown),
    ("oci-archive:/absent.tar", errors.RequestInvalid),
    ("oci-archive:{text}", errors.RequestInvalid),
    ("oci-archive:{fifo}", errors.RequestInvalid),
    ("docker-archive:{empty}", errors.RequestInvalid),
    ("oci-archive:{layout}", errors.RequestInvalid),
    ("oci:{hollow}", errors.BlobsMissing),
    ("oci:{corrupt}", errors.ContentCorrupt),
    ("oci:{corrupt_layer}", errors.ContentCorrupt),
    ("oci:{short_layer}", errors.ContentCorrupt),
]


@pytest.mark.parametrize(("source", "expected"), BROKEN_SOURCES, ids=[s for s, _ in BROKEN_SOURCES])
async def test_a_source_that_is_broken_is_refused(
    gateway: RunningGateway,
    registry: RunningRegistry,
    tmp_path: Path,
    source: str,
    expected: type[errors.LnsError],
) -> None:
    layer = fresh()
    built = build_image(layer)
    places = {
        name: tmp_path / name
        for name in (
            "empty",
            "fifo",
            "layout",
            "text",
            "hollow",
            "corrupt",
            "corrupt_layer",
            "short_layer",
        )
    }
    places["empty"].mkdir()
    os.mkfifo(places["fifo"])
    places["text"].write_text("not an archive")
    for name in ("layout", "hollow", "corrupt", "corrupt_layer", "short_layer"):
        write_layout(places[name], built, "v1")
    blob = Path("blobs/sha256")
    (places["hollow"] / blob / Digest.of(layer).hex).unlink()
    (places["corrupt"] / blob / built.digest.hex).write_bytes(built.raw + b" ")
    (places["corrupt_layer"] / blob / Digest.of(layer).hex).write_bytes(b"x" * len(layer))
    (places["short_layer"] / blob / Digest.of(layer).hex).write_bytes(layer[:-1])

    with pytest.raises(expected):
        await gateway.push_image(source.format(**places), registry.new_repository())


# Repositories


async def test_an_image_is_described_with_config_and_sizes(
    gateway: RunningGateway, image: tuple[Built, str]
) -> None:
    built, reference = image

    answer = await gateway.call("InspectManifest", reference=reference)

    assert answer.manifest == built.raw
    assert Digest.of(answer.config) in built.blobs
    assert answer.total_bytes == sum(map(len, built.blobs.values()))
    assert (answer.family, list(answer.platforms)) == ("", [])


async def test_an_index_is_described_with_its_platforms(
    gateway: RunningGateway, multi: tuple[Built, str]
) -> None:
    index, reference = multi

    answer = await gateway.call("InspectManifest", reference=reference)
    arm = await gateway.call("InspectManifest", reference=reference, platform=ARM)

    assert answer.manifest == index.raw
    assert [one.platform.architecture for one in answer.platforms] == ["amd64", "arm64"]
    assert answer.config == b""
    assert arm.manifest == platform_manifest(index, "arm64").raw


async def test_a_tag_more_names_the_same_bytes(
    gateway: RunningGateway, registry: RunningRegistry, image: tuple[Built, str]
) -> None:
    built, reference = image
    path = reference.partition("/")[2].rpartition(":")[0]

    answer = await gateway.call("TagManifest", reference=reference, tag="v2")

    assert answer.reference == f"{registry.host}/{path}:v2"
    assert manifest_in(registry.url, path, "v2") == built.raw
    tags = await gateway.call("ListTags", repository=reference)
    assert list(tags.tags) == ["v1", "v2"]
    with pytest.raises(errors.ReferenceInvalid):
        await gateway.call("TagManifest", reference=reference, tag="no tag")


async def test_tags_come_sorted_and_by_pages(
    gateway: RunningGateway, registry: RunningRegistry
) -> None:
    built = build_image(fresh())
    path = new_path(registry)
    for tag in ("b", "a", "d", "c", "e"):
        upload(registry.url, path, built, tag)
    repository = f"{registry.host}/{path}"

    pages, token = [], ""
    while True:
        page = await gateway.call("ListTags", repository=repository, page_size=2, page_token=token)
        pages.append(list(page.tags))
        token = page.next_page_token
        if not token:
            break

    assert pages == [["a", "b"], ["c", "d"], ["e"]]
    with pytest.raises(errors.ManifestUnknown):
        await gateway.call("ListTags", repository=f"{repository}/absent")
    for fields in ({"page_size": -1}, {"page_token": "%%%"}, {"page_token": "/w=="}):
        with pytest.raises(errors.RequestInvalid):
            await gateway.call("ListTags", repository=repository, **fields)


async def test_a_copy_within_a_registry_mounts_and_fetches_nothing(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy, multi: tuple[Built, str]
) -> None:
    index, reference = multi
    reference = reference.replace(reference.partition("/")[0], proxy.host)
    target = new_path(registry)

    call = gateway.stub.CopyManifest(
        pb.CopyManifestRequest(
            source=reference, destination=f"{proxy.host}/{target}:v", all_platforms=True
        )
    )
    *_, last = [event async for event in call]

    assert last.result.descriptor.digest == index.digest
    assert last.result.transferred_bytes == 0
    assert manifest_in(registry.url, target, "v") == index.raw
    assert proxy.count(GET_BLOB) == 0


async def test_a_copy_between_registries_is_byte_for_byte(
    gateway: RunningGateway, deletable_registry: RunningRegistry, multi: tuple[Built, str]
) -> None:
    index, reference = multi
    target = new_path(deletable_registry)

    for fields in ({"all_platforms": True}, {"platform": ARM}):
        call = gateway.stub.CopyManifest(
            pb.CopyManifestRequest(
                source=reference, destination=f"{deletable_registry.host}/{target}:v", **fields
            )
        )
        *_, last = [event async for event in call]
        wanted = index if "all_platforms" in fields else platform_manifest(index, "arm64")
        assert last.result.descriptor.digest == wanted.digest
        assert manifest_in(deletable_registry.url, target, "v") == wanted.raw


async def test_a_manifest_is_deleted_with_its_only_tag(
    gateway: RunningGateway, deletable_registry: RunningRegistry
) -> None:
    built = build_image(fresh())
    path = new_path(deletable_registry)
    upload(deletable_registry.url, path, built, "v1")
    reference = f"{deletable_registry.host}/{path}:v1"

    answer = await gateway.call("DeleteManifest", reference=reference)

    assert answer.digest == built.digest
    with pytest.raises(errors.ManifestUnknown):
        await gateway.call("GetManifest", reference=reference)
    with pytest.raises(errors.ManifestUnknown):
        await gateway.call("DeleteManifest", reference=reference)


@pytest.mark.parametrize("kind", ["image", "index"])
async def test_a_manifest_with_more_tags_is_deleted_only_by_force(
    gateway: RunningGateway, deletable_registry: RunningRegistry, kind: str
) -> None:
    built = build_image(fresh())
    if kind == "index":
        built = build_index(("amd64", built))
    path = new_path(deletable_registry)
    for tag in ("a", "b"):
        upload(deletable_registry.url, path, built, tag)
    reference = f"{deletable_registry.host}/{path}:a"

    with pytest.raises(errors.InUse) as caught:
        await gateway.call("DeleteManifest", reference=reference)
    assert "b" in caught.value.message
    assert manifest_in(deletable_registry.url, path, "a") == built.raw

    await gateway.call("DeleteManifest", reference=reference, force=True)
    for tag in ("a", "b"):
        with pytest.raises(errors.ManifestUnknown):
            await gateway.call("GetManifest", reference=f"{deletable_registry.host}/{path}:{tag}")


async def test_a_registry_that_does_not_delete_says_so(
    gateway: RunningGateway, image: tuple[Built, str]
) -> None:
    with pytest.raises(errors.RegistryDenied):
        await gateway.call("DeleteManifest", reference=image[1])


async def test_referrers_are_listed_by_the_fallback_tag(
    gateway: RunningGateway, registry: RunningRegistry, image: tuple[Built, str]
) -> None:
    built, reference = image
    path = reference.partition("/")[2].rpartition(":")[0]
    subject = {"media_type": OCI_MANIFEST, "digest": built.digest, "size_bytes": len(built.raw)}
    document = b"{apiVersion: lens.dev/v1alpha1, kind: Knowledge, metadata: {name: %s}, spec: {}}"
    assert (await gateway.call("ListReferrers", reference=reference)).referrers == []

    pushed = await asyncio.gather(
        *(
            gateway.call(
                "PushArtifact",
                reference=f"{registry.host}/{path}:{name}",
                family="knowledge",
                document=document % name.encode(),
                subject=subject,
                annotations={"name": name},
            )
            for name in ("a", "b", "c")
        )
    )

    found = (await gateway.call("ListReferrers", reference=reference)).referrers
    assert {one.digest for one in found} == {one.descriptor.digest for one in pushed}
    assert {one.artifact_type for one in found} == {"application/vnd.lens.knowledge.v1+json"}
    assert {one.annotations["name"] for one in found} == {"a", "b", "c"}
    none = await gateway.call("ListReferrers", reference=reference, artifact_type="x/y")
    assert none.referrers == []


async def test_a_gateway_finds_again_what_the_one_before_it_stored(
    short_directory: Path, image: tuple[Built, str]
) -> None:
    built, reference = image
    async with run_gateway(short_directory) as first:
        await first.pull(reference)
    async with run_gateway(short_directory) as second:
        result = await second.pull(reference, mode=pb.PULL_MODE_NEVER)

    assert result.manifest == built.raw


async def test_two_gateways_do_not_share_a_store(short_directory: Path) -> None:
    async with run_gateway(short_directory):
        with pytest.raises(errors.InUse):
            async with run_gateway(short_directory):
                pass
