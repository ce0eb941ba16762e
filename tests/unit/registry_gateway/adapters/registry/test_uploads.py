"""How a blob goes into a registry, what is remembered of it, and which answers are believed."""

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

import pytest

from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import ContentCorrupt, RegistryProtocol
from services.registry_gateway.adapters.credentials.authenticator import Access, Authenticator
from services.registry_gateway.adapters.registry.blob_offer import UploadTarget
from services.registry_gateway.adapters.registry.exchange import Exchange, RetryPolicy
from services.registry_gateway.adapters.registry.upload import ChunkPolicy, Uploader
from services.registry_gateway.adapters.transport.http_client import HttpClient, Timeouts
from services.registry_gateway.ports import UploadSession
from services.registry_gateway.progress import Meter, Stage
from tests.support.http_messages import Response
from tests.support.http_peer import Exchange as Served
from tests.support.http_peer import HttpPeer
from tests.unit.registry_gateway.adapters.registry.test_challenges import Logins

DATA = bytes(range(200)) * 10
BLOB = Descriptor(media_type="", digest=Digest.of(DATA), size=len(DATA))
CHUNK = 600
CHUNKS = ChunkPolicy(least_bytes=1, chunk_bytes=CHUNK)
WHOLE = ChunkPolicy(least_bytes=1 << 40, chunk_bytes=CHUNK)


class Sessions:
    """Remembers uploads, and what was ever remembered."""

    def __init__(self) -> None:
        self.kept: dict[str, UploadSession] = {}
        self.saved: list[int] = []

    def load(self, key: str) -> UploadSession | None:
        return self.kept.get(key)

    def save(self, key: str, session: UploadSession) -> None:
        self.kept[key] = UploadSession(location=session.location, offset=session.offset)
        self.saved.append(session.offset)

    def drop(self, key: str) -> None:
        self.kept.pop(key, None)


@dataclass
class Source:
    """A blob, or what should be one."""

    data: bytes = DATA

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data)


@dataclass
class Registry:
    """A registry with one upload session, whose answers a test may change.

    Attributes:
        has: the bytes of the blob, once it is whole.
        received: the bytes of the session.
        wrong: answers instead of the right ones, by method; None breaks the connection.
    """

    has: bytes | None = None
    received: bytes = b""
    wrong: dict[str, list[tuple[int, dict[str, str]] | None]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def serve(self, served: Served) -> None:
        method, body = served.request.method, served.read_body()
        self.asked.append(method)
        right = self._right(method, body)
        queue = self.wrong.get(method, [])
        answer = queue.pop(0) if queue else right
        if answer is None:
            served.abort()
            return
        status, headers = answer
        sent = [*headers.items(), ("Content-Length", "0")]
        served.send(Response(status=status, headers=sent, body=iter([])))

    def _right(self, method: str, body: bytes) -> tuple[int, dict[str, str]]:
        here = {"Location": "/session?state=1"}
        match method:
            case "HEAD":
                return (200 if self.has is not None else 404), {}
            case "POST":
                self.received = b""
                return 202, here
            case "GET":
                return 204, {**here, "Range": f"0-{len(self.received) - 1}"}
            case "PATCH":
                self.received += body
                return 202, {**here, "Range": f"0-{len(self.received) - 1}"}
        self.has = self.received + body
        return 201, {}


@pytest.fixture
def push() -> Iterator[Callable[..., Meter]]:
    policy = RetryPolicy(attempts=3, base=0.001, longest=0.001)
    with contextlib.closing(HttpClient(timeouts=Timeouts())) as http:
        exchange = Exchange(http, Authenticator(http, Logins()), policy=policy)

        def run(
            registry: Registry,
            chunks: ChunkPolicy,
            *,
            source: Source | None = None,
            sessions: Sessions | None = None,
            begun: int | None = None,
        ) -> Meter:
            kept = sessions or Sessions()
            meter = Meter(BLOB.digest, BLOB.size)
            with HttpPeer(registry.serve) as peer:
                target = UploadTarget(
                    what="x",
                    blob_url=f"{peer.url}/v2/x/blobs/{BLOB.digest}",
                    uploads_url=f"{peer.url}/v2/x/blobs/uploads/",
                    access=Access.to("x", "pull,push"),
                )
                if begun is not None:
                    place = UploadSession(location=f"{peer.url}/session", offset=begun)
                    kept.save(target.blob_url, place)
                Uploader(exchange, chunks, kept).push(
                    target, BLOB, source or Source(), meter, mount_from=[]
                )
            return meter

        yield run


@pytest.mark.parametrize("chunks", [WHOLE, CHUNKS])
def test_a_blob_arrives_as_it_is(push: Callable[..., Meter], chunks: ChunkPolicy) -> None:
    registry, sessions = Registry(), Sessions()

    meter = push(registry, chunks, sessions=sessions)

    assert registry.has == DATA
    assert (meter.stage, meter.moved) == (Stage.DONE, len(DATA))
    assert sessions.kept == {}


def test_every_chunk_is_remembered_once_the_registry_has_it(push: Callable[..., Meter]) -> None:
    sessions = Sessions()

    push(Registry(), CHUNKS, sessions=sessions)

    assert sessions.saved == [600, 1200, 1800, 2000]


def test_an_upload_goes_on_where_registry_and_memory_agree(push: Callable[..., Meter]) -> None:
    registry = Registry(received=DATA[:CHUNK])

    push(registry, CHUNKS, begun=CHUNK)

    assert registry.has == DATA
    assert "POST" not in registry.asked


@pytest.mark.parametrize("answer", [(404, {}), (204, {"Range": "0-9"}), (200, {})])
def test_where_they_do_not_agree_the_blob_begins_anew(
    push: Callable[..., Meter], answer: tuple[int, dict[str, str]]
) -> None:
    registry = Registry(received=DATA[:CHUNK], wrong={"GET": [answer]})

    push(registry, CHUNKS, begun=CHUNK)

    assert registry.has == DATA
    assert registry.asked.count("POST") == 1


@pytest.mark.parametrize("claimed", ["", "0-5000", "5-599", "0--1", "all of it", "bytes=0-9999"])
def test_where_the_range_cannot_be_our_own_count_decides(
    push: Callable[..., Meter], claimed: str
) -> None:
    answer = (202, {"Location": "/session", "Range": claimed})
    registry, sessions = Registry(wrong={"PATCH": [answer]}), Sessions()

    push(registry, CHUNKS, sessions=sessions)

    assert registry.has == DATA
    assert sessions.saved[0] == CHUNK


def test_a_registry_that_kept_less_is_sent_the_rest_again(push: Callable[..., Meter]) -> None:
    answer = (202, {"Location": "/session", "Range": "0-99"})
    registry, sessions = Registry(wrong={"PATCH": [answer]}), Sessions()

    push(registry, CHUNKS, sessions=sessions)

    assert sessions.saved[:2] == [100, 700]


@pytest.mark.parametrize("location", ["", "ftp://x/", "http://[::1"])
def test_a_place_that_must_not_be_is_not_gone_to(push: Callable[..., Meter], location: str) -> None:
    registry = Registry(wrong={"POST": [(202, {"Location": location})]})

    with pytest.raises(RegistryProtocol):
        push(registry, WHOLE)

    assert registry.asked == ["HEAD", "POST"]


def test_an_answer_that_was_lost_is_looked_up_before_anything_is_sent_again(
    push: Callable[..., Meter],
) -> None:
    registry = Registry(wrong={"PUT": [None]})

    push(registry, WHOLE)

    assert registry.asked == ["HEAD", "POST", "PUT", "HEAD"]


def test_a_registry_that_takes_no_chunks_gets_the_blob_in_one_request(
    push: Callable[..., Meter],
) -> None:
    registry = Registry(wrong={"PATCH": [(405, {})]})

    push(registry, CHUNKS)

    assert registry.asked == ["HEAD", "POST", "PATCH", "POST", "PUT"]


def test_a_source_that_is_shorter_than_its_blob_is_corrupt(push: Callable[..., Meter]) -> None:
    registry = Registry()

    with pytest.raises(ContentCorrupt, match=re.escape(BLOB.digest.short)):
        push(registry, WHOLE, source=Source(DATA[:-1]))

    assert registry.has is None
