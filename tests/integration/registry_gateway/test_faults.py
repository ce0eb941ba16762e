"""A registry that fails or lies: the right recovery or the right error, nothing wrong stored."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import pytest
from lns.registry.v1 import registry_service_pb2 as pb
from lns.types.v1 import usage_pb2

from services.core import errors
from services.core.digest import Digest
from tests.support.eventually import eventually
from tests.support.fault_proxy import Fault, FaultProxy, Kind, Match
from tests.support.faults import (
    Answer,
    CutUpload,
    Drip,
    DropAnswer,
    FlipByte,
    GiantBody,
    Hold,
    IgnoreRange,
    Misdeclare,
    Redirect,
    RedirectLoop,
    ReplaceHeaders,
    Reset,
    Resize,
    ShiftRange,
    Truncate,
    deep_json,
    error_answer,
    server_error,
    too_many_requests,
)
from tests.support.gateway import RunningGateway
from tests.support.images import Built, build_image, manifest_in, random_bytes, upload
from tests.support.registry import RunningRegistry

MIB = 1 << 20
GET_BLOB = Match(method="GET", kind=Kind.BLOB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """An image in the registry, its reference through the proxy, and its largest layer."""

    built: Built
    path: str
    reference: str
    layer: Digest
    size: int

    @property
    def get_layer(self) -> Match:
        return Match(method="GET", kind=Kind.BLOB, digest=self.layer)


@pytest.fixture
def thing(registry: RunningRegistry, proxy: FaultProxy) -> Thing:
    layer = random_bytes(6 * MIB + 17, time.time_ns())
    built = build_image(layer, random_bytes(500, 2), indent=1)
    path = registry.new_repository().partition("/")[2]
    upload(registry.url, path, built, "v1")
    return Thing(
        built=built,
        path=path,
        reference=f"{proxy.host}/{path}:v1",
        layer=Digest.of(layer),
        size=len(layer),
    )


def check_whole(gateway: RunningGateway, thing: Thing) -> None:
    """Every blob of the image is in the store, whole; nothing is left half-done."""
    for digest, data in thing.built.blobs.items():
        assert gateway.blob_path(digest).read_bytes() == data
    assert gateway.unfinished() == set()


def check_nothing_wrong(gateway: RunningGateway) -> None:
    """Whatever has a name in the store has the bytes of that name."""
    for digest in gateway.stored():
        assert Digest.of(gateway.blob_path(digest).read_bytes()) == digest


RECOVERED: list[tuple[str, Fault, int]] = [
    ("reset before the answer", Reset(), 1),
    ("reset at the first byte", Reset(after=0), 1),
    ("reset in the middle", Reset(after=3 * MIB), 2),
    ("ended in the middle", Truncate(after=3 * MIB + 5), 2),
    ("ended twice", Truncate(after=2 * MIB), 2),
    ("status 500", server_error(500), 2),
    ("status 502", server_error(502), 1),
    ("status 503 with a wish", server_error(503, retry_after="0"), 2),
    ("status 408", error_answer(408, "UNKNOWN"), 1),
    ("status 429", too_many_requests("0"), 2),
    ("status 429 without a wish", too_many_requests(), 1),
]


@pytest.mark.parametrize(("name", "fault", "times"), RECOVERED, ids=[row[0] for row in RECOVERED])
async def test_a_pull_recovers_from_what_passes(
    gateway: RunningGateway, proxy: FaultProxy, thing: Thing, name: str, fault: Fault, times: int
) -> None:
    broken = proxy.script(thing.get_layer, fault, times=times)

    result = await gateway.pull(thing.reference)

    assert broken.played == times
    assert result.manifest == thing.built.raw
    check_whole(gateway, thing)


async def test_a_broken_download_goes_on_where_it_broke(
    gateway: RunningGateway, proxy: FaultProxy, thing: Thing
) -> None:
    proxy.script(thing.get_layer, Truncate(after=4 * MIB), times=1)

    events = await gateway.pull_events(thing.reference)

    first, second = proxy.select(thing.get_layer)
    assert "range" not in first.headers
    assert second.headers["range"] == f"bytes={4 * MIB}-{thing.size - 1}"
    assert second.status == 206
    assert first.sent_bytes + second.sent_bytes == thing.size
    stages = {e.progress.stage for e in events if e.progress.digest == thing.layer}
    assert usage_pb2.STAGE_RETRYING in stages or usage_pb2.STAGE_DONE in stages
    check_whole(gateway, thing)


@pytest.mark.parametrize(
    "fault",
    [
        IgnoreRange(),
        ShiftRange(by=1, honest=True),
        ShiftRange(by=1, honest=False),
        ShiftRange(by=MIB, honest=True),
        ReplaceHeaders(headers={"Content-Range": None}),
        ReplaceHeaders(headers={"Content-Range": "bytes 0-1/2"}),
        ReplaceHeaders(headers={"Content-Range": "bytes */5"}),
        ReplaceHeaders(headers={"Content-Range": "nonsense"}),
        Answer(status=416),
    ],
    ids=str,
)
async def test_a_continuation_that_is_not_the_right_one_begins_the_blob_anew(
    gateway: RunningGateway, proxy: FaultProxy, thing: Thing, fault: Fault
) -> None:
    proxy.script(thing.get_layer, Truncate(after=4 * MIB), times=1)
    proxy.script(Match(kind=Kind.BLOB, where=lambda r: "range" in r.headers), fault)

    await gateway.pull(thing.reference)

    check_whole(gateway, thing)
    assert proxy.select(thing.get_layer)[-1].status == 200


CORRUPT: list[tuple[str, Fault]] = [
    ("a flipped byte", FlipByte(at=5 * MIB)),
    ("a flipped first byte", FlipByte(at=0)),
    ("a byte more", Resize(by=1)),
    ("a byte less", Resize(by=-1)),
    ("nothing", Resize(by=-(1 << 40))),
    ("much more", Resize(by=100 * MIB)),
]


@pytest.mark.parametrize(("name", "fault"), CORRUPT, ids=[row[0] for row in CORRUPT])
async def test_a_blob_that_is_not_the_one_asked_for_is_refused_and_not_kept(
    gateway: RunningGateway, proxy: FaultProxy, thing: Thing, name: str, fault: Fault
) -> None:
    proxy.script(thing.get_layer, fault)

    with pytest.raises(errors.ContentCorrupt):
        await gateway.pull(thing.reference)

    assert thing.layer not in gateway.stored()
    # The beginning of a neighbour, which the failure cut off, may stay: it can be taken up.
    assert f"{Digest(thing.layer).hex}.part" not in gateway.unfinished()
    check_nothing_wrong(gateway)
    proxy.heal()
    await gateway.pull(thing.reference)
    check_whole(gateway, thing)


async def test_a_blob_that_claims_more_bytes_than_come_is_not_kept(
    gateway: RunningGateway, proxy: FaultProxy, thing: Thing
) -> None:
    proxy.script(thing.get_layer, Misdeclare(by=7))

    with pytest.raises((errors.ContentCorrupt, errors.RegistryUnavailable)):
        await gateway.pull(thing.reference)

    assert thing.layer not in gateway.stored()
    check_nothing_wrong(gateway)


MANIFESTS: list[tuple[str, Fault, type[errors.LnsError]]] = [
    ("endless", GiantBody(), errors.LimitExceeded),
    ("giant and honest", GiantBody(size=1 << 33), errors.LimitExceeded),
    ("deep", deep_json(), errors.RegistryProtocol),
    ("an html page", Answer(status=200, body=b"<html>"), errors.RegistryProtocol),
    ("nothing", Answer(status=200), errors.RegistryProtocol),
    ("another type", ReplaceHeaders(headers={"Content-Type": "text/html"}), errors.LnsError),
    (
        "the type of an index",
        ReplaceHeaders(headers={"Content-Type": "application/vnd.oci.image.index.v1+json"}),
        errors.RegistryProtocol,
    ),
    ("a loop", RedirectLoop(), errors.RegistryProtocol),
    ("gone", error_answer(404, "MANIFEST_UNKNOWN"), errors.ManifestUnknown),
    ("no repository", error_answer(404, "NAME_UNKNOWN"), errors.ManifestUnknown),
    ("a bare 404", Answer(status=404), errors.ManifestUnknown),
    ("forbidden", error_answer(403, "DENIED"), errors.RegistryDenied),
    ("teapot", Answer(status=418), errors.RegistryProtocol),
    ("a redirect to nowhere", Answer(status=307), errors.RegistryProtocol),
    (
        "a redirect to another scheme",
        Answer(status=307, headers={"Location": "file:///etc/passwd"}),
        errors.RegistryProtocol,
    ),
    (
        "a redirect with a user",
        Answer(status=307, headers={"Location": "http://a:b@127.0.0.1:1/"}),
        errors.RegistryProtocol,
    ),
]


@pytest.mark.parametrize(
    ("name", "fault", "expected"), MANIFESTS, ids=[row[0] for row in MANIFESTS]
)
async def test_a_manifest_that_is_invalid_is_the_right_error(
    gateway: RunningGateway,
    proxy: FaultProxy,
    thing: Thing,
    name: str,
    fault: Fault,
    expected: type[errors.LnsError],
) -> None:
    proxy.script(Match(kind=Kind.MANIFEST), fault)

    if name == "another type":  # the document says what it is: who sent it may lie
        await gateway.pull(thing.reference)
        check_whole(gateway, thing)
        return
    with pytest.raises(expected):
        await gateway.pull(thing.reference)
    assert gateway.stored() == set()
    assert gateway.unfinished() == set()


@pytest.mark.parametrize("fault", [FlipByte(at=3), Resize(by=2), Resize(by=-2)], ids=str)
async def test_a_manifest_of_another_digest_than_asked_for_is_refused(
    gateway: RunningGateway, proxy: FaultProxy, thing: Thing, fault: Fault
) -> None:
    proxy.script(Match(method="GET", kind=Kind.MANIFEST), fault)

    with pytest.raises(errors.ContentCorrupt):
        await gateway.pull(f"{proxy.host}/{thing.path}@{thing.built.digest}")

    assert gateway.stored() == set()


async def test_a_registry_that_is_down_is_unavailable_soon(
    gateway: RunningGateway, proxy: FaultProxy, thing: Thing
) -> None:
    with proxy.refusing(), pytest.raises(errors.RegistryUnavailable) as caught:
        await gateway.pull(thing.reference)

    assert proxy.host in caught.value.message
    assert caught.value.retry_after is not None


async def test_a_registry_that_only_fails_is_unavailable(
    gateway: RunningGateway, proxy: FaultProxy, thing: Thing
) -> None:
    broken = proxy.script(Match(kind=Kind.MANIFEST), server_error(503))

    with pytest.raises(errors.RegistryUnavailable) as caught:
        await gateway.call("GetManifest", reference=thing.reference)

    assert broken.played == gateway.settings.attempts
    assert caught.value.metadata["status"] == "503"


async def test_a_long_wish_to_wait_is_passed_on_at_once(
    gateway: RunningGateway, proxy: FaultProxy, thing: Thing
) -> None:
    broken = proxy.script(Match(kind=Kind.MANIFEST), too_many_requests("3600"))

    with pytest.raises(errors.TooManyRequests) as caught:
        await gateway.call("GetManifest", reference=thing.reference)

    assert broken.played == 1
    assert caught.value.retry_after == 3600


async def test_a_short_wish_to_wait_is_granted(
    gateway: RunningGateway, proxy: FaultProxy, thing: Thing
) -> None:
    proxy.script(Match(kind=Kind.MANIFEST), too_many_requests("1"), times=1)

    began = time.monotonic()
    await gateway.call("GetManifest", reference=thing.reference)

    assert time.monotonic() - began >= 1.0


@pytest.mark.parametrize(
    "fault",
    [Drip(after=MIB, piece=1, interval=0.05), Hold(after=MIB), Hold(), Hold(after=0)],
    ids=["drips", "stops in the body", "never answers", "stops after the headers"],
)
async def test_a_call_ends_at_its_deadline_whatever_the_registry_does(
    gateway: RunningGateway, proxy: FaultProxy, thing: Thing, fault: Fault
) -> None:
    held = proxy.script(thing.get_layer, fault)

    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded):
        async for _ in gateway.stub.Pull(pb.PullRequest(reference=thing.reference), timeout=1.0):
            pass
    assert time.monotonic() - began < 3.0

    assert held.played == 1
    proxy.heal()
    await gateway.pull(thing.reference)  # the thread was free again, and what came was kept
    check_whole(gateway, thing)


async def test_a_cancelled_pull_stops_its_transfer(
    gateway: RunningGateway, proxy: FaultProxy, thing: Thing
) -> None:
    held = proxy.script(thing.get_layer, Hold(after=2 * MIB))
    call = gateway.stub.Pull(pb.PullRequest(reference=thing.reference))
    pulling = asyncio.ensure_future(_drain(call))
    await eventually(lambda: held.played == 1)
    part = gateway.home / "blobs" / "ingest" / f"{thing.layer.hex}.part"
    await eventually(lambda: part.exists() and part.stat().st_size >= MIB)

    pulling.cancel()
    await asyncio.gather(pulling, return_exceptions=True)

    proxy.heal()
    await gateway.pull(thing.reference)
    check_whole(gateway, thing)
    assert "range" in proxy.select(thing.get_layer)[-1].headers


async def _drain(call: Any) -> None:
    async for _ in call:
        pass


async def test_a_stalled_download_is_taken_up_on_another_connection(
    gateway: RunningGateway, proxy: FaultProxy, thing: Thing
) -> None:
    proxy.script(thing.get_layer, Hold(after=2 * MIB), times=1)

    await gateway.pull(thing.reference)  # after the 5 s of stall_timeout

    assert proxy.count(thing.get_layer) == 2
    check_whole(gateway, thing)


# Pushing


@pytest.fixture
async def pulled(gateway: RunningGateway, registry: RunningRegistry) -> Built:
    """An image in the gateway's store."""
    built = build_image(random_bytes(3 * MIB, time.time_ns()), indent=2)
    path = registry.new_repository().partition("/")[2]
    upload(registry.url, path, built, "v1")
    await gateway.pull(f"{registry.host}/{path}:v1")
    return built


def stored_reference(built: Built, registry: RunningRegistry) -> str:
    return f"{registry.host}/any@{built.digest}"


PUSH_FAULTS: list[tuple[str, Match, Fault, int]] = [
    ("POST reset", Match(method="POST", kind=Kind.UPLOAD), Reset(), 1),
    ("POST 503", Match(method="POST", kind=Kind.UPLOAD), server_error(503), 2),
    ("PUT reset", Match(method="PUT", kind=Kind.UPLOAD), Reset(), 1),
    ("PUT cut inside", Match(method="PUT", kind=Kind.UPLOAD), CutUpload(after=MIB), 1),
    ("PUT answer lost", Match(method="PUT", kind=Kind.UPLOAD), DropAnswer(), 1),
    ("PUT 500", Match(method="PUT", kind=Kind.UPLOAD), server_error(500), 1),
    ("PUT 429", Match(method="PUT", kind=Kind.UPLOAD), too_many_requests("0"), 1),
    (
        "session lost",
        Match(method="PUT", kind=Kind.UPLOAD),
        error_answer(404, "BLOB_UPLOAD_UNKNOWN"),
        1,
    ),
    ("HEAD 500", Match(method="HEAD", kind=Kind.BLOB), server_error(500), 1),
    ("manifest PUT reset", Match(method="PUT", kind=Kind.MANIFEST), Reset(), 1),
    ("manifest answer lost", Match(method="PUT", kind=Kind.MANIFEST), DropAnswer(), 1),
    (
        "a blob vanished",
        Match(method="PUT", kind=Kind.MANIFEST),
        error_answer(400, "MANIFEST_BLOB_UNKNOWN"),
        1,
    ),
]


@pytest.mark.parametrize(
    ("name", "match", "fault", "times"), PUSH_FAULTS, ids=[row[0] for row in PUSH_FAULTS]
)
async def test_a_push_recovers_from_what_passes(
    gateway: RunningGateway,
    registry: RunningRegistry,
    proxy: FaultProxy,
    pulled: Built,
    name: str,
    match: Match,
    fault: Fault,
    times: int,
) -> None:
    broken = proxy.script(match, fault, times=times)
    path = registry.new_repository().partition("/")[2]

    result = await gateway.push_image(
        stored_reference(pulled, registry), f"{proxy.host}/{path}:copy"
    )

    assert broken.played == times
    assert result.descriptor.digest == pulled.digest
    assert manifest_in(registry.url, path, "copy") == pulled.raw


async def test_a_registry_that_changes_a_manifest_is_found_out(
    gateway: RunningGateway, registry: RunningRegistry, proxy: FaultProxy, pulled: Built
) -> None:
    lie = ReplaceHeaders(headers={"Docker-Content-Digest": Digest.of(b"other")})
    proxy.script(Match(method="PUT", kind=Kind.MANIFEST), lie)

    with pytest.raises(errors.RegistryProtocol):
        await gateway.push_image(
            stored_reference(pulled, registry), f"{proxy.host}/t/x{time.time_ns()}:copy"
        )


@pytest.mark.parametrize(
    "location",
    [None, "", "file:///x", "http://[::1", "gopher://127.0.0.1/", "http://a b/"],
)
async def test_an_upload_without_a_usable_place_is_an_error(
    gateway: RunningGateway,
    registry: RunningRegistry,
    proxy: FaultProxy,
    pulled: Built,
    location: str | None,
) -> None:
    begin = Match(method="POST", kind=Kind.UPLOAD)
    proxy.script(begin, ReplaceHeaders(headers={"Location": location}))

    with pytest.raises(errors.RegistryProtocol):
        await gateway.push_image(
            stored_reference(pulled, registry), f"{proxy.host}/t/x{time.time_ns()}:copy"
        )


@pytest.mark.parametrize("fault", [Redirect(), Redirect(other_port=True)], ids=["host", "port"])
async def test_downloads_follow_redirects_to_other_hosts(
    gateway: RunningGateway, proxy: FaultProxy, thing: Thing, fault: Fault
) -> None:
    proxy.script(Match(kind=Kind.BLOB, peer=proxy.host), fault)
    proxy.script(Match(kind=Kind.MANIFEST, peer=proxy.host), fault)

    await gateway.pull(thing.reference)

    check_whole(gateway, thing)
