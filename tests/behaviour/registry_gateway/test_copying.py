"""Copying and referring: everything that belongs together, and nothing written by mistake."""

import json
from typing import Any

import pytest
from lns.registry.v1 import registry_service_pb2 as pb

from services.core import errors
from services.core.descriptor import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST
from services.core.digest import Digest
from services.core.reference import Reference
from services.registry_gateway.ports import RawManifest
from tests.support.gateway_world import World
from tests.support.images import Built, blob_descriptor, build_image, build_index, random_bytes

SOURCE = "registry.example/team/app"
TARGET = "other.example/copies/app"
EMPTY = b"{}"
AMD = build_image(random_bytes(100, "amd"))
ARM = build_image(random_bytes(100, "arm"), architecture="arm64")
INDEX = build_index(("amd64", AMD), ("arm64", ARM))


def referrer(subject: Built, text: bytes = b"signed") -> Built:
    """Returns an artifact that refers to a manifest."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.sig",
        "config": blob_descriptor(EMPTY, OCI_EMPTY),
        "layers": [blob_descriptor(text, "text/plain")],
        "subject": subject.descriptor,
    }
    return Built(
        raw=json.dumps(document).encode(),
        media_type=OCI_MANIFEST,
        blobs={Digest.of(EMPTY): EMPTY, Digest.of(text): text},
    )


def listed(*built: Built, **more: Any) -> bytes:
    """Returns a list of referrers as another client wrote it."""
    entries = [one.descriptor | {"artifactType": "application/vnd.example.sig"} for one in built]
    return json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries, **more}
    ).encode()


def fallback(subject: Built) -> str:
    return subject.digest.replace(":", "-")


async def copy(world: World, **fields: Any) -> pb.PushImageResult:
    request = pb.CopyManifestRequest(source=f"{SOURCE}:1", destination=f"{TARGET}:1", **fields)
    return [event async for event in world.stub.CopyManifest(request)][-1].result


@pytest.fixture
def signed(world: World) -> Built:
    """A signed index in the registry; the signature is signed, too."""
    world.put(INDEX, f"{SOURCE}:1")
    first = referrer(INDEX)
    second = referrer(first, b"countersigned")
    for subject, one in ((INDEX, first), (first, second)):
        world.put(one, f"{SOURCE}@{one.digest}")
        world.registry.put(f"{SOURCE}:{fallback(subject)}", listed(one), OCI_INDEX, {})
    return first


async def test_an_index_is_copied_whole_and_byte_for_byte(world: World) -> None:
    world.put(INDEX, f"{SOURCE}:1")

    result = await copy(world)

    there = world.registry.repositories[TARGET]
    assert result.descriptor.digest == INDEX.digest
    assert {digest: one.raw for digest, one in there.manifests.items()} == {
        one.digest: one.raw for one in (INDEX, AMD, ARM)
    }
    assert set(there.blobs) == set(INDEX.all_blobs)


async def test_of_an_index_one_platform_is_copied_where_that_is_asked_for(world: World) -> None:
    world.put(INDEX, f"{SOURCE}:1")

    result = await copy(world, platform={"os": "linux", "architecture": "arm64"})

    assert result.descriptor.digest == ARM.digest
    assert set(world.registry.repositories[TARGET].manifests) == {ARM.digest}


async def test_all_platforms_and_one_of_them_contradict_each_other(world: World) -> None:
    with pytest.raises(errors.RequestInvalid):
        await copy(world, platform={"os": "linux", "architecture": "arm64"}, all_platforms=True)


async def test_what_refers_to_the_source_is_copied_at_every_level(
    world: World, signed: Built
) -> None:
    await copy(world)

    there = world.registry.repositories[TARGET]
    second = referrer(signed, b"countersigned")
    assert {signed.digest, second.digest} <= set(there.manifests)
    for subject, one in ((INDEX, signed), (signed, second)):
        tag = there.manifests[there.tags[fallback(subject)]]
        assert [entry["digest"] for entry in json.loads(tag.raw)["manifests"]] == [one.digest]


@pytest.mark.parametrize("suffix", ["sig", "att", "sbom"])
async def test_what_cosign_keeps_under_tags_is_copied(world: World, suffix: str) -> None:
    world.put(INDEX, f"{SOURCE}:1")
    kept = build_image(random_bytes(50, suffix))
    tag = f"{fallback(AMD)}.{suffix}"
    world.put(kept, f"{SOURCE}:{tag}")

    await copy(world)

    assert world.registry.repositories[TARGET].tags[tag] == kept.digest


async def test_without_referrers_only_the_source_is_copied(world: World, signed: Built) -> None:
    await copy(world, without_referrers=True)

    assert signed.digest not in world.registry.repositories[TARGET].manifests


async def test_what_refers_and_cannot_be_listed_is_reported(world: World) -> None:
    world.put(AMD, f"{SOURCE}:1")
    world.registry.fail("list_referrers", errors.RegistryDenied("no access"))

    result = await copy(world)

    assert ["no access" in text for text in result.warnings] == [True]


async def test_a_registry_that_reads_the_fallback_tag_as_the_digest_is_not_written_to(
    world: World,
) -> None:
    """GitLab's habit: the tag `sha256-HEX` names the manifest `sha256:HEX`."""
    world.registry.resolves_fallback_tags = True
    world.put(INDEX, f"{SOURCE}:1")
    signature = referrer(INDEX)
    world.put(signature, "origin.example/x:1")

    request = pb.CopyManifestRequest(source="origin.example/x:1", destination=f"{SOURCE}:sig")
    result = [event async for event in world.stub.CopyManifest(request)][-1].result

    here = world.registry.repositories[SOURCE]
    assert signature.digest in here.manifests
    assert fallback(INDEX) not in here.tags
    assert ["not a list of referrers" in text for text in result.warnings] == [True]
    asked = pb.ListReferrersRequest(reference=f"{SOURCE}@{INDEX.digest}")
    assert not (await world.stub.ListReferrers(asked)).referrers


@pytest.mark.parametrize(
    "what",
    [
        AMD,
        build_index(("amd64", AMD)),
        Built(raw=b'{"schemaVersion": 2}', media_type=OCI_INDEX),
        Built(raw=b"not json", media_type=OCI_INDEX),
    ],
    ids=["an image", "platforms", "no list", "no JSON"],
)
async def test_what_is_no_list_of_referrers_is_never_overwritten(world: World, what: Built) -> None:
    world.put(INDEX, f"{SOURCE}:1")
    signature = referrer(INDEX)
    world.put(signature, "origin.example/x:1")
    tag = Reference.parse(f"{SOURCE}:{fallback(INDEX)}")
    here = world.registry.repositories[SOURCE]
    here.manifests[what.digest] = RawManifest(raw=what.raw, media_type=what.media_type)
    here.tags[str(tag.tag)] = what.digest

    request = pb.CopyManifestRequest(
        source="origin.example/x:1", destination=f"{SOURCE}:sig", without_referrers=True
    )
    async for _ in world.stub.CopyManifest(request):
        pass

    assert here.tags[str(tag.tag)] == what.digest


async def test_a_list_of_referrers_of_another_client_keeps_what_lns_does_not_know(
    world: World,
) -> None:
    world.put(INDEX, f"{SOURCE}:1")
    signature, older = referrer(INDEX), referrer(INDEX, b"older")
    world.put(signature, "origin.example/x:1")
    before = json.loads(listed(older, annotations={"a": "b"}))
    before["manifests"][0] |= {"data": "aGk=", "urls": ["https://x.example"]}
    raw = json.dumps(before).encode()
    world.registry.put(f"{SOURCE}:{fallback(INDEX)}", raw, OCI_INDEX, {})
    here = world.registry.repositories[SOURCE]
    here.manifests[older.digest] = RawManifest(raw=older.raw, media_type=OCI_MANIFEST)

    request = pb.CopyManifestRequest(
        source="origin.example/x:1", destination=f"{SOURCE}:sig", without_referrers=True
    )
    async for _ in world.stub.CopyManifest(request):
        pass

    after = json.loads(here.manifests[here.tags[fallback(INDEX)]].raw)
    assert after["manifests"][0] == before["manifests"][0]
    assert after["annotations"] == {"a": "b"}
    assert [one["digest"] for one in after["manifests"]] == [older.digest, signature.digest]


async def test_an_artifact_without_content_has_ocis_empty_descriptor(world: World) -> None:
    document = b"""{"apiVersion": "lens.dev/v1alpha1", "kind": "Policy", "metadata": {"name": "p"},
        "spec": {"network": {"defaultVerdict": "deny"}}}"""
    response = await world.stub.PushArtifact(
        pb.PushArtifactRequest(reference="r.example/policies/p:1", document=document)
    )

    repository = world.registry.repositories["r.example/policies/p"]
    manifest = json.loads(repository.manifests[Digest(response.descriptor.digest)].raw)
    assert [layer["mediaType"] for layer in manifest["layers"]] == [OCI_EMPTY]
    assert repository.blobs[Digest.of(EMPTY)] == EMPTY
    pulled = await world.pull("r.example/policies/p:1")
    assert pulled[-1].result.family == "policy"


async def test_layers_of_content_have_a_title(world: World) -> None:
    data = random_bytes(64, 1)
    header = pb.WriteBlobHeader(digest=Digest.of(data), size_bytes=len(data))
    steps = [
        pb.WriteBlobRequest(header=header),
        pb.WriteBlobRequest(chunk=data),
        pb.WriteBlobRequest(commit=pb.WriteBlobCommit()),
    ]
    await world.stub.WriteBlob(iter(steps))
    layer = {
        "media_type": "application/vnd.oci.image.layer.v1.tar+gzip",
        "digest": Digest.of(data),
        "size_bytes": len(data),
    }
    document = b"""{"apiVersion": "lens.dev/v1alpha1", "kind": "FileSet",
        "metadata": {"name": "docs"}, "mount": {"path": "/docs"}, "spec": {}}"""
    response = await world.stub.PushArtifact(
        pb.PushArtifactRequest(
            reference="r.example/filesets/docs:1", document=document, layers=[layer]
        )
    )

    repository = world.registry.repositories["r.example/filesets/docs"]
    manifest = json.loads(repository.manifests[Digest(response.descriptor.digest)].raw)
    titles = [one["annotations"]["org.opencontainers.image.title"] for one in manifest["layers"]]
    assert titles == ["docs.tar.gz"]


async def test_sha512_digests_hold_from_the_source_to_the_target(world: World) -> None:
    data = random_bytes(300, "sha512")
    long = Digest.of(data, algorithm="sha512")
    image = build_image(data)
    document = json.loads(image.raw)
    document["layers"][0]["digest"] = long
    inner = Built(
        raw=json.dumps(document).encode(),
        media_type=OCI_MANIFEST,
        blobs={**image.blobs, long: data},
    )
    named = Digest.of(inner.raw, algorithm="sha512")
    entry = inner.descriptor | {
        "digest": named,
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}).encode()
    here = world.registry.repositories[SOURCE]
    here.manifests[named] = RawManifest(raw=inner.raw, media_type=OCI_MANIFEST)
    world.registry.put(f"{SOURCE}:1", index, OCI_INDEX, inner.blobs)

    pulled = (await world.pull(f"{SOURCE}:1"))[-1].result
    await copy(world)
    pushed = pb.PushImageRequest(
        source=f"{SOURCE}:1", reference="third.example/x:1", all_platforms=True
    )
    async for _ in world.stub.PushImage(pushed):
        pass

    assert pulled.descriptor.digest == named
    for place in (TARGET, "third.example/x"):
        there = world.registry.repositories[place]
        assert there.manifests[named].raw == inner.raw
        assert there.blobs[long] == data
    assert long in world.store.blobs


FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def windows(layer: bytes) -> Built:
    """Returns an image on a base that its registry does not distribute."""
    base = b"a base of Windows"
    foreign = blob_descriptor(base, FOREIGN) | {"urls": ["https://elsewhere.example/base"]}
    made = build_image(layer)
    document = json.loads(made.raw)
    return Built(
        raw=json.dumps(document | {"layers": [foreign, *document["layers"]]}).encode(),
        media_type=OCI_MANIFEST,
        blobs=made.blobs,
    )


async def test_foreign_layers_are_left_out_where_the_source_lacks_them(world: World) -> None:
    image = windows(b"one more layer")
    world.put(image, f"{SOURCE}:1")
    world.registry.takes_foreign_layers = True

    result = await copy(world)

    there = world.registry.repositories[TARGET]
    assert there.manifests[image.digest].raw == image.raw
    assert set(there.blobs) == set(image.blobs)
    (warning,) = result.warnings
    assert "registry.example lacks it" in warning


async def test_a_pull_says_that_a_layer_is_foreign(world: World) -> None:
    world.put(windows(b"one more layer"), f"{SOURCE}:1")

    with pytest.raises(errors.BlobUnknown, match="does not distribute the foreign layer"):
        await world.pull(f"{SOURCE}:1")
