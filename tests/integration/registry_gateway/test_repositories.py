"""What a repository has: inspected, tagged, copied, deleted, referred to."""

import asyncio
from pathlib import Path

import pytest
from lns.registry.v1 import registry_service_pb2 as pb

from services.core import errors
from services.core.descriptor import OCI_MANIFEST
from services.core.digest import Digest
from tests.support.fault_proxy import FaultProxy, Kind, Match
from tests.support.gateway import RunningGateway, run_gateway
from tests.support.images import (
    Built,
    build_image,
    build_index,
    manifest_in,
    upload,
)
from tests.support.registry import RunningRegistry
from tests.support.registry_images import fresh, new_path, platform_manifest

ARM = {"os": "linux", "architecture": "arm64"}
GET_BLOB = Match(method="GET", kind=Kind.BLOB)


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
