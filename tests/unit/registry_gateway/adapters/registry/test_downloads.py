"""Which answers continue a blob, and what of the others is kept: nothing."""

import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.chassis.blocking import Blocking
from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import BlobUnknown, ContentCorrupt, RegistryUnavailable
from services.registry_gateway.adapters.credentials.authenticator import Access, Authenticator
from services.registry_gateway.adapters.registry.download import Downloader, SegmentPolicy
from services.registry_gateway.adapters.registry.exchange import Exchange, Request, RetryPolicy
from services.registry_gateway.adapters.store.disk_store import DiskStore
from services.registry_gateway.adapters.transport.http_client import HttpClient, Timeouts
from services.registry_gateway.ports import Ingest
from services.registry_gateway.progress import Meter
from tests.support.http_messages import Response
from tests.support.http_peer import Exchange as Served
from tests.support.http_peer import HttpPeer
from tests.unit.registry_gateway.adapters.registry.test_challenges import Logins

DATA = bytes(range(256)) * 40
BLOB = Descriptor(media_type="", digest=Digest.of(DATA), size=len(DATA))
HALF = len(DATA) // 2
Serve = Callable[[Served, int], None]


def send(served: Served, status: int, body: bytes, **headers: str) -> None:
    sent = [(name.replace("_", "-"), value) for name, value in headers.items()]
    served.send(
        Response(
            status=status,
            headers=[("Content-Length", str(len(body))), *sent],
            body=iter([body]),
        )
    )


def asked(served: Served) -> int:
    """From where on the blob is asked for."""
    match = re.fullmatch(r"bytes=(\d+)-\d+", served.request.headers.get("range", ""))
    return int(match[1]) if match else 0


def files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file()]


class Brought:
    """One download from a peer, into a store of its own."""

    def __init__(self, directory: Path, policy: SegmentPolicy) -> None:
        self.starts: list[int] = []
        self._directory = directory
        self._policy = policy

    async def run(self, serve: Serve, *, kept: bytes = b"") -> bytes:
        """Brings the blob; `kept` is what an earlier try left."""

        def counted(served: Served) -> None:
            self.starts.append(asked(served))
            serve(served, self.starts[-1])

        with Blocking(1) as blocking, HttpPeer(counted) as peer, self._downloader() as downloader:
            store = DiskStore(self._directory, blocking)
            if kept:
                earlier = await store.ingest(BLOB, resume=True)
                earlier.write(kept)
                earlier.close()
            sink = await store.ingest(BLOB, resume=True)
            with contextlib.closing(sink):
                await blocking.run(self._fetch, downloader, f"{peer.url}/blob", sink)
            return await store.read(BLOB.digest, limit=len(DATA))

    @contextlib.contextmanager
    def _downloader(self) -> Iterator[Downloader]:
        policy = RetryPolicy(attempts=3, base=0.001, longest=0.001)
        with contextlib.closing(HttpClient(timeouts=Timeouts())) as http:
            exchange = Exchange(http, Authenticator(http, Logins()), policy=policy)
            with contextlib.closing(Downloader(exchange, self._policy)) as downloader:
                yield downloader

    def _fetch(self, downloader: Downloader, url: str, sink: Ingest) -> None:
        request = Request(method="GET", url=url, access=Access.to("x", "pull"), headers={})
        downloader.fetch(request, "x", sink, Meter(BLOB.digest, BLOB.size))


ONE_PIECE = SegmentPolicy(least_bytes=1 << 40)
SEGMENTS = SegmentPolicy(
    least_bytes=1, least_latency=0.0, segment_bytes=len(DATA) // 4, connections=2, buffers=2
)


def content_range(start: int, last: int, total: str = str(len(DATA))) -> str:
    return f"bytes {start}-{last}/{total}"


async def test_a_beginning_is_continued_where_it_ends(tmp_path: Path) -> None:
    def serve(served: Served, start: int) -> None:
        whole = content_range(start, len(DATA) - 1)
        send(served, 206, DATA[start:], Content_Range=whole)

    brought = Brought(tmp_path, ONE_PIECE)

    assert await brought.run(serve, kept=DATA[:HALF]) == DATA
    assert brought.starts == [HALF]


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "bytes */10240",
        content_range(HALF + 1, len(DATA) - 1),
        content_range(HALF - 1, len(DATA) - 1),
        content_range(HALF, len(DATA) - 2),
        content_range(HALF, len(DATA)),
        content_range(HALF, len(DATA) - 1, str(len(DATA) + 1)),
        content_range(HALF, len(DATA) - 1) + " and more",
        f"items {HALF}-{len(DATA) - 1}/{len(DATA)}",
    ],
)
async def test_another_part_than_was_asked_for_begins_the_blob_anew(
    tmp_path: Path, wrong: str
) -> None:
    def serve(served: Served, start: int) -> None:
        if start:
            send(served, 206, DATA[start:], Content_Range=wrong)
        else:
            send(served, 200, DATA)

    brought = Brought(tmp_path, ONE_PIECE)

    assert await brought.run(serve, kept=DATA[:HALF]) == DATA
    assert brought.starts == [HALF, 0]


@pytest.mark.parametrize("status", [200, 416])
async def test_a_registry_that_continues_nothing_sends_the_blob_whole(
    tmp_path: Path, status: int
) -> None:
    def serve(served: Served, start: int) -> None:
        send(served, status if start else 200, b"" if start and status != 200 else DATA)

    brought = Brought(tmp_path, ONE_PIECE)

    assert await brought.run(serve, kept=DATA[:HALF]) == DATA
    assert brought.starts == [HALF, 0]


async def test_a_beginning_of_something_else_is_not_believed_twice(tmp_path: Path) -> None:
    def serve(served: Served, start: int) -> None:
        if start:
            send(served, 206, DATA[start:], Content_Range=content_range(start, len(DATA) - 1))
        else:
            send(served, 200, DATA)

    brought = Brought(tmp_path, ONE_PIECE)

    assert await brought.run(serve, kept=b"x" * HALF) == DATA
    assert brought.starts == [HALF, 0]


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (200, b"y" * len(DATA), ContentCorrupt),
        (200, DATA + b"more", ContentCorrupt),
        (200, DATA[:-1], ContentCorrupt),
        (404, b"", BlobUnknown),
        (503, b"", RegistryUnavailable),
    ],
)
async def test_what_is_not_the_blob_is_an_error_and_not_kept(
    tmp_path: Path, status: int, body: bytes, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await Brought(tmp_path, ONE_PIECE).run(lambda served, _: send(served, status, body))

    assert files(tmp_path) == []


async def test_segments_are_put_together_in_their_order(tmp_path: Path) -> None:
    def serve(served: Served, start: int) -> None:
        end = start + len(DATA) // 4
        send(served, 206, DATA[start:end], Content_Range=content_range(start, end - 1))

    brought = Brought(tmp_path, SEGMENTS)

    assert await brought.run(serve) == DATA
    assert sorted(brought.starts) == [0, len(DATA) // 4, HALF, HALF + len(DATA) // 4]


async def test_a_segment_that_is_another_one_is_not_put_in(tmp_path: Path) -> None:
    def serve(served: Served, start: int) -> None:
        end = start + len(DATA) // 4
        if "range" not in served.request.headers:
            send(served, 200, DATA)
        elif start == HALF:
            send(served, 206, DATA[:HALF], Content_Range=content_range(0, HALF - 1))
        else:
            send(served, 206, DATA[start:end], Content_Range=content_range(start, end - 1))

    assert await Brought(tmp_path, SEGMENTS).run(serve) == DATA


async def test_a_connection_that_breaks_is_tried_again_once_for_each_try(tmp_path: Path) -> None:
    brought = Brought(tmp_path, ONE_PIECE)

    with pytest.raises(RegistryUnavailable):
        await brought.run(lambda served, _: served.abort())

    assert len(brought.starts) == 3
