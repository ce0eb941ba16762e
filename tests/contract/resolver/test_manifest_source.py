"""What every source of manifests must do: the fake of the tests, and a gateway with a registry."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from lns.registry.v1 import registry_service_pb2

from services.chassis.channel import open_channel
from services.chassis.settings import PeerSettings
from services.core.artifacts import families
from services.core.artifacts.documents import parse_artifact
from services.core.artifacts.families import family_of_manifest
from services.core.descriptor import OCI_INDEX, OCI_MANIFEST
from services.core.digest import Digest
from services.core.errors import ManifestUnknown, PlatformUnsupported, ReferenceInvalid
from services.core.platforms import Platform
from services.resolver.adapters.gateway_manifests import GatewayManifests
from services.resolver.ports import ManifestSource
from tests.fakes.manifest_source import AMD64, FakeManifests
from tests.support.documents import document
from tests.support.gateway import run_gateway
from tests.support.images import Built, upload
from tests.support.registry import RunningRegistry

ARM64 = Platform(architecture="arm64")
ZERO = f"sha256:{'0' * 64}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An implementer, and how artifacts get behind it.

    Attributes:
        source: the implementer.
        shelf: where a test puts artifacts.
        prefix: `host/path` below which they are.
        publish: makes what is on the shelf known to the source.
    """

    source: ManifestSource
    shelf: FakeManifests
    prefix: str
    publish: Callable[[], Awaitable[None]]


@contextlib.asynccontextmanager
async def fake() -> AsyncIterator[Subject]:
    shelf = FakeManifests()

    async def publish() -> None:
        """The shelf is the source."""

    yield Subject(source=shelf, shelf=shelf, prefix="registry.test/team", publish=publish)


@contextlib.asynccontextmanager
async def gateway(registry: RunningRegistry, home: Path) -> AsyncIterator[Subject]:
    shelf = FakeManifests()

    async def publish() -> None:
        for repository, tag, built in built_of(shelf):
            upload(registry.url, repository.partition("/")[2], built, tag)

    peer = PeerSettings(target=f"unix:{home}/gateway.sock")
    async with run_gateway(home), open_channel(peer, registry_service_pb2.DESCRIPTOR) as channel:
        yield Subject(
            source=GatewayManifests(channel),
            shelf=shelf,
            prefix=registry.new_repository().rpartition("/")[0],
            publish=publish,
        )


def built_of(shelf: FakeManifests) -> list[tuple[str, str, Built]]:
    """Returns repository, tag and bytes of everything that is tagged on a shelf."""
    found = []
    for reference, digest in shelf._tags.items():
        repository, _, tag = reference.rpartition(":")

        def build(repository: str, digest: Digest) -> Built:
            raw = shelf._manifests[repository, digest]
            manifest = shelf.parsed(repository, digest)
            children = getattr(manifest, "manifests", ())
            config = getattr(manifest, "config", None)
            return Built(
                raw=raw,
                media_type=manifest.descriptor.media_type,
                blobs={} if config is None else {config.digest: shelf._blobs[config.digest]},
                children=tuple(build(repository, child.digest) for child in children),
            )

        found.append((repository, tag, build(repository, digest)))
    return found


@pytest.fixture(params=["fake", pytest.param("gateway", marks=pytest.mark.integration)])
async def subject(request: pytest.FixtureRequest, short_directory: Path) -> AsyncIterator[Subject]:
    if request.param == "fake":
        async with fake() as made:
            yield made
        return
    async with gateway(request.getfixturevalue("registry"), short_directory) as made:
        yield made


async def test_a_tag_names_a_manifest_with_its_config(subject: Subject) -> None:
    reference = f"{subject.prefix}/images/x:1"
    put = subject.shelf.put_image(reference, {"Cmd": ["x"]})
    await subject.publish()

    fetched = await subject.source.fetch(reference, platform=AMD64)

    assert (fetched.reference, fetched.repository) == (reference, f"{subject.prefix}/images/x")
    assert fetched.root.digest == fetched.manifest.descriptor.digest == put.digest
    assert fetched.root.media_type == OCI_MANIFEST
    assert fetched.root.size == len(fetched.manifest.raw)
    assert fetched.manifest.is_image
    assert Digest.of(fetched.config) == fetched.manifest.config.digest
    assert fetched.pinned == f"{subject.prefix}/images/x@{put.digest}"


async def test_an_index_is_followed_to_the_platform(subject: Subject) -> None:
    reference = f"{subject.prefix}/images/multi:1"
    put = subject.shelf.put_image(reference, platforms=(AMD64, ARM64))
    await subject.publish()

    amd = await subject.source.fetch(reference, platform=AMD64)
    arm = await subject.source.fetch(reference, platform=ARM64)

    assert amd.root.digest == arm.root.digest == put.digest
    assert amd.root.media_type == OCI_INDEX
    assert amd.manifest.descriptor.digest != arm.manifest.descriptor.digest
    assert b"arm64" in arm.config


async def test_an_index_without_the_platform_is_refused(subject: Subject) -> None:
    reference = f"{subject.prefix}/images/multi:1"
    subject.shelf.put_image(reference, platforms=(AMD64, ARM64))
    await subject.publish()

    with pytest.raises(PlatformUnsupported, match="linux/amd64, linux/arm64"):
        await subject.source.fetch(reference, platform=Platform(architecture="s390x"))


async def test_a_digest_names_its_manifest_whatever_the_tag(subject: Subject) -> None:
    reference = f"{subject.prefix}/images/x:1"
    old = subject.shelf.put_image(reference, {"Cmd": ["old"]})
    await subject.publish()
    subject.shelf.put_image(reference, {"Cmd": ["new"]})
    await subject.publish()

    for written in (f"{subject.prefix}/images/x@{old.digest}", f"{reference}@{old.digest}"):
        fetched = await subject.source.fetch(written, platform=AMD64)
        assert fetched.root.digest == old.digest
        assert b"old" in fetched.config


async def test_a_tag_is_looked_up_anew_each_time(subject: Subject) -> None:
    reference = f"{subject.prefix}/images/x:1"
    for command in ("old", "new"):
        subject.shelf.put_image(reference, {"Cmd": [command]})
        await subject.publish()
        assert command.encode() in (await subject.source.fetch(reference, platform=AMD64)).config


async def test_an_artifact_comes_with_its_document(subject: Subject) -> None:
    reference = f"{subject.prefix}/knowledge/k:1"
    value = document(families.KNOWLEDGE, "k", {"description": "é"})
    subject.shelf.put_artifact(reference, families.KNOWLEDGE, value)
    await subject.publish()

    fetched = await subject.source.fetch(reference, platform=AMD64)

    assert family_of_manifest(fetched.manifest) is families.KNOWLEDGE
    assert parse_artifact(fetched.config).document == value


@pytest.mark.parametrize("selector", [":nope", f"@{ZERO}"])
async def test_what_does_not_exist_is_unknown(subject: Subject, selector: str) -> None:
    subject.shelf.put_image(f"{subject.prefix}/images/x:1")
    await subject.publish()

    with pytest.raises(ManifestUnknown):
        await subject.source.fetch(f"{subject.prefix}/images/x{selector}", platform=AMD64)


async def test_what_was_fetched_once_is_found_offline_by_its_digest(subject: Subject) -> None:
    reference = f"{subject.prefix}/images/multi:1"
    put = subject.shelf.put_image(reference, platforms=(AMD64, ARM64))
    await subject.publish()
    pinned = f"{subject.prefix}/images/multi@{put.digest}"

    with pytest.raises(ManifestUnknown):
        await subject.source.fetch(pinned, platform=AMD64, offline=True)
    online = await subject.source.fetch(reference, platform=AMD64)
    offline = await subject.source.fetch(pinned, platform=AMD64, offline=True)

    assert (offline.manifest, offline.config) == (online.manifest, online.config)
    with pytest.raises(ManifestUnknown):
        await subject.source.fetch(pinned, platform=ARM64, offline=True)


@pytest.mark.parametrize("reference", ["", "UPPER/x", "a b", "x@sha256:1", "host:port/x"])
async def test_what_is_no_reference_is_refused(subject: Subject, reference: str) -> None:
    with pytest.raises(ReferenceInvalid):
        await subject.source.fetch(reference, platform=AMD64)
