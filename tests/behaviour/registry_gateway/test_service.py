"""The gateway's service over gRPC with fakes behind its ports: streams, errors, draining."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lns.registry.v1 import registry_service_pb2 as pb
from lns.registry.v1 import registry_service_pb2_grpc as rpc
from lns.types.v1 import usage_pb2

from services.chassis.channel import open_channel
from services.chassis.settings import PeerSettings
from services.core import errors
from services.core.digest import Digest
from tests.support.eventually import eventually
from tests.support.gateway_world import REFERENCE, World, running, served
from tests.support.images import build_image, build_index, random_bytes

IMAGE = build_image(random_bytes(300_000, 1), random_bytes(100, 2), indent=2)


async def test_a_pull_says_how_far_it_is_and_then_what_it_brought(world: World) -> None:
    world.put(IMAGE)
    world.registry.gate.clear()
    call = world.stub.Pull(pb.PullRequest(reference=REFERENCE))
    first = await anext(aiter(call))
    assert first.progress.stage == usage_pb2.STAGE_DOWNLOADING
    world.registry.gate.set()

    rest = [event async for event in call]

    assert rest[-1].result.manifest == IMAGE.raw
    assert world.store.blobs == {IMAGE.digest: IMAGE.raw, **IMAGE.blobs}
    assert [one async for one in _references(world)] == [REFERENCE]


async def _references(world: World) -> AsyncIterator[str]:
    answer = await world.stub.ListStoredImages(pb.ListStoredImagesRequest())
    for image in answer.images:
        yield image.reference


async def test_a_stream_that_ends_without_a_result_did_not_pull(world: World) -> None:
    world.put(IMAGE)
    world.registry.gate.clear()

    with pytest.raises(errors.DeadlineExceeded):
        async for event in world.stub.Pull(pb.PullRequest(reference=REFERENCE), timeout=0.3):
            assert event.WhichOneof("event") == "progress"

    assert await world.index.list_tags() == []
    await eventually(lambda: world.store.at_work == set())


async def test_a_reader_that_is_slow_gets_the_result_and_no_backlog(world: World) -> None:
    world.put(IMAGE)
    events = 0
    async for event in world.stub.Pull(pb.PullRequest(reference=REFERENCE)):
        events += 1
        await asyncio.sleep(0.02)  # slower than the transfer
        last = event

    assert last.result.manifest == IMAGE.raw
    assert events <= 12


async def test_a_server_that_drains_ends_pulls_and_keeps_what_came(short_directory: Path) -> None:
    async with served(short_directory) as world:
        async with open_channel(PeerSettings(target=world.target), pb.DESCRIPTOR) as channel:
            async with running(world, grace=0.2):
                world.stub = rpc.RegistryServiceStub(channel)  # outlives the server
                world.put(IMAGE)
                world.registry.gate.clear()
                pulling = asyncio.ensure_future(world.pull())
                await eventually(lambda: world.registry.calls["fetch_blob"] == 3)
            with pytest.raises(errors.ServiceUnavailable, match="shutting down"):
                await pulling
        assert world.store.at_work == set()
        assert await world.index.list_tags() == []

        async with running(world):
            world.registry.gate.set()
            assert (await world.pull())[-1].result.manifest == IMAGE.raw


FAILURES = [
    errors.RegistryUnavailable("down", retry_after=1.0),
    errors.TooManyRequests("slow down", retry_after=30.0),
    errors.RegistryUnauthenticated("login", hint="lns login registry.example"),
    errors.RegistryDenied("denied"),
    errors.RegistryProtocol("odd"),
    errors.LimitExceeded("large"),
    errors.ContentCorrupt("other bytes"),
    errors.ManifestUnknown("none"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: one.reason)
@pytest.mark.parametrize("method", ["GetManifest", "InspectManifest", "Pull", "TagManifest"])
async def test_what_a_registry_fails_with_reaches_the_caller_as_it_is(
    world: World, failure: errors.LnsError, method: str
) -> None:
    world.put(IMAGE)
    world.registry.fail("fetch_manifest", *[failure] * 4)
    request = getattr(pb, f"{method}Request")(reference=REFERENCE)
    if method == "TagManifest":
        request.tag = "v2"

    with pytest.raises(type(failure)) as caught:
        if method == "Pull":
            await world.pull()
        else:
            await getattr(world.stub, method)(request)

    assert caught.value.hint == failure.hint
    assert caught.value.retry_after == failure.retry_after
    assert world.store.blobs == {}


async def test_a_full_disk_is_a_failure_and_leaves_nothing(world: World) -> None:
    world.put(IMAGE)
    world.store.room = 1000

    with pytest.raises(errors.CapacityExhausted):
        await world.pull()

    assert set(world.store.blobs) <= {IMAGE.digest, *IMAGE.blobs}
    assert await world.index.list_tags() == []
    world.store.room = None
    assert (await world.pull())[-1].result.manifest == IMAGE.raw


async def test_a_push_that_fails_records_no_tag(world: World) -> None:
    document = {
        "apiVersion": "lens.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "m"},
        "spec": {"provider": "p", "model": "m"},
    }
    world.registry.fail("push_manifest", errors.RegistryDenied("no"))
    request = pb.PushArtifactRequest(
        reference="registry.example/models/m", document=json.dumps(document).encode()
    )

    with pytest.raises(errors.RegistryDenied):
        await world.stub.PushArtifact(request)
    assert await world.index.list_tags() == []

    answer = await world.stub.PushArtifact(request)
    assert answer.reference == "registry.example/models/m:latest"


async def test_a_bare_name_is_one_of_the_default_registry(world: World) -> None:
    world.put(IMAGE, "docker.io/library/debian:12")

    answer = await world.stub.GetManifest(pb.GetManifestRequest(reference="debian:12"))

    assert answer.reference == "docker.io/library/debian:12"
    assert answer.repository == "docker.io/library/debian"
    assert answer.manifest == IMAGE.raw


async def test_offline_the_store_alone_answers(world: World) -> None:
    index = build_index(("amd64", IMAGE))
    world.put(index)
    request = pb.GetManifestRequest(
        reference=REFERENCE,
        platform={"os": "linux", "architecture": "amd64"},
        include_config=True,
        offline=True,
    )
    with pytest.raises(errors.ManifestUnknown):
        await world.stub.GetManifest(request)
    await world.pull(platform={"os": "linux", "architecture": "amd64"})
    world.registry.calls.clear()

    answer = await world.stub.GetManifest(request)

    assert (answer.root.digest, answer.manifest) == (index.digest, IMAGE.raw)
    assert Digest.of(answer.config) in IMAGE.blobs
    assert world.registry.calls == {}


VARIANTS = {name: build_image(random_bytes(50, name), variant=name) for name in ("v1", "v2", "v4")}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(("asked", "expected"), [("v4", "v4"), ("v3", "v2"), ("v1", "v1")])
async def test_of_several_variants_the_best_that_was_asked_for_is_taken(
    world: World, asked: str, expected: str, order: int
) -> None:
    children = [(f"x86_64/{name}", built) for name, built in VARIANTS.items()]
    world.put(build_index(*children[::order]))
    platform = {"os": "linux", "architecture": "amd64", "variant": asked}

    answer = await world.stub.GetManifest(
        pb.GetManifestRequest(reference=REFERENCE, platform=platform)
    )

    assert answer.manifest == VARIANTS[expected].raw


@pytest.mark.parametrize("name", [None, ""])
async def test_an_entry_that_does_not_say_its_platform_is_judged_by_its_config(
    world: World, name: str | None
) -> None:
    foreign = build_image(random_bytes(60, 1), architecture="riscv64")
    own = build_image(random_bytes(60, 2), architecture="x86_64")
    world.put(build_index(("arm64", foreign), (name, foreign), (name, own)))
    platform = {"os": "linux", "architecture": "amd64"}
    request = pb.GetManifestRequest(reference=REFERENCE, platform=platform)

    assert (await world.stub.GetManifest(request)).manifest == own.raw
    request.platform.architecture = "s390x"
    with pytest.raises(errors.PlatformUnsupported, match="linux/arm64, linux/riscv64, linux/amd64"):
        await world.stub.GetManifest(request)


async def test_an_image_of_one_platform_is_not_pulled_as_another(world: World) -> None:
    world.put(IMAGE)

    with pytest.raises(errors.PlatformUnsupported, match="linux/amd64 alone, not for linux/arm64"):
        await world.pull(platform={"os": "linux", "architecture": "aarch64"})
    await world.pull(platform={"os": "linux", "architecture": "x86_64"})
    copying = pb.CopyManifestRequest(
        source=REFERENCE,
        destination="registry.example/team/other:1",
        platform={"os": "linux", "architecture": "arm64"},
    )
    with pytest.raises(errors.PlatformUnsupported, match="not for linux/arm64"):
        async for _ in world.stub.CopyManifest(copying):
            pass


async def test_one_platform_and_all_are_not_asked_for_together(world: World) -> None:
    platform = {"os": "linux", "architecture": "amd64"}
    with pytest.raises(errors.RequestInvalid, match="cannot both"):
        await world.pull(platform=platform, all_platforms=True)


async def test_what_was_pulled_by_its_tag_is_found_by_its_digest(world: World) -> None:
    """A run asks for the manifest that its plan pins, not for the tag."""
    index = build_index(("amd64", IMAGE))
    world.put(index)
    await world.pull(platform={"os": "linux", "architecture": "amd64"})
    world.registry.calls.clear()
    repository = REFERENCE.rpartition(":")[0]

    await world.pull(f"{repository}@{IMAGE.digest}", mode=pb.PULL_MODE_NEVER)

    assert world.registry.calls == {}
    with pytest.raises(errors.ManifestUnknown):
        await world.pull(f"other.example/x@{IMAGE.digest}", mode=pb.PULL_MODE_NEVER)


async def test_what_lacks_a_blob_is_not_there_offline_and_pulled_again_where_it_may_be(
    world: World,
) -> None:
    world.put(IMAGE)
    await world.pull()
    lost = list(IMAGE.blobs)[-1]
    del world.store.blobs[lost]

    with pytest.raises(errors.ManifestUnknown, match="does not have all of"):
        await world.pull(mode=pb.PULL_MODE_NEVER)
    await world.pull(mode=pb.PULL_MODE_MISSING)

    assert lost in world.store.blobs


async def test_a_platform_must_be_whole(world: World) -> None:
    for platform in ({"os": "linux"}, {"architecture": "amd64"}, {}):
        with pytest.raises(errors.RequestInvalid):
            await world.stub.GetManifest(
                pb.GetManifestRequest(reference=REFERENCE, platform=platform)
            )


async def test_a_pull_mode_of_a_newer_client_is_refused(world: World) -> None:
    with pytest.raises(errors.RequestInvalid):
        await world.pull(mode=99)


async def test_logins_are_verified_kept_listed_and_forgotten(world: World) -> None:
    world.registry.passwords["registry.example"] = "right"
    wrong = pb.LoginRequest(registry="registry.example", username="me", secret="wrong")
    with pytest.raises(errors.RegistryUnauthenticated):
        await world.stub.Login(wrong)
    assert world.logins.logins == {}

    right = pb.LoginRequest(registry="https://registry.example/", username="me", secret="right")
    assert (await world.stub.Login(right)).stored_in == "file"
    (kept,) = (await world.stub.ListLogins(pb.ListLoginsRequest())).logins
    assert (kept.registry, kept.username) == ("registry.example", "me")
    assert "right" not in str(kept)
    assert (await world.stub.Logout(pb.LogoutRequest(registry="registry.example"))).removed
    assert world.logins.logins == {}


@pytest.mark.parametrize(
    "name", [one.name for one in pb.DESCRIPTOR.services_by_name["RegistryService"].methods]
)
async def test_an_empty_request_is_answered_or_refused_with_a_reason(
    world: World, name: str
) -> None:
    method = pb.DESCRIPTOR.services_by_name["RegistryService"].methods_by_name[name]
    call, request = getattr(world.stub, name), getattr(pb, f"{name}Request")()
    refusal: errors.LnsError | None = None
    try:
        if method.client_streaming:
            await call(iter([]))
        elif method.server_streaming:
            async for _ in call(request):
                pass
        else:
            await call(request)
    except errors.LnsError as error:
        refusal = error

    answered = name.startswith("List") and name not in ("ListTags", "ListReferrers")
    assert (refusal is None) is (answered or name in ("PruneBlobs", "ReleaseLease"))
    if refusal is not None:
        assert refusal.reason in {
            "REFERENCE_INVALID",
            "REQUEST_INVALID",
            "DIGEST_INVALID",
            "ARTIFACT_INVALID",
        }
