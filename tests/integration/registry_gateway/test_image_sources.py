"""Images from outside of the store: layouts, archives, a Docker daemon."""

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

from services.core import errors
from services.core.digest import Digest
from tests.support.gateway import RunningGateway, run_gateway
from tests.support.images import (
    Built,
    blob_in,
    build_image,
    build_index,
    manifest_in,
    write_layout,
)
from tests.support.registry import RunningRegistry
from tests.support.registry_images import fresh, new_path


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
