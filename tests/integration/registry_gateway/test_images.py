"""Images go through the gateway byte for byte: pull and push."""

import asyncio
import json

import pytest
from lns.registry.v1 import registry_service_pb2 as pb
from lns.types.v1 import usage_pb2

from services.core import errors
from services.core.descriptor import DOCKER_INDEX, DOCKER_MANIFEST
from services.core.digest import Digest
from tests.support.fault_proxy import FaultProxy, Kind, Match
from tests.support.faults import Hold, error_answer
from tests.support.gateway import RunningGateway
from tests.support.images import (
    Built,
    build_image,
    build_index,
    delete_blob,
    manifest_in,
    upload,
)
from tests.support.registry import RunningRegistry
from tests.support.registry_images import fresh, new_path, platform_manifest

ARM = {"os": "linux", "architecture": "arm64"}
AMD = {"os": "linux", "architecture": "amd64"}
GET_BLOB = Match(method="GET", kind=Kind.BLOB)
MIB = 1 << 20


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
