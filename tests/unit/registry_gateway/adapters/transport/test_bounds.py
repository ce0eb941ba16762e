"""A hostile server gains no byte, second or address that it was not asked for."""

import contextlib
import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from services.core import errors
from services.registry_gateway.adapters.transport.http_client import HttpClient, Timeouts
from services.registry_gateway.adapters.transport.http_reply import HostUnknown, TooLong
from services.registry_gateway.adapters.transport.origin import Origin
from services.registry_gateway.adapters.transport.pace import Pace, Rate

HASTY = Rate(window=0.4, least=1 << 10, total=30.0)
STRANGER = Origin.of_url("https://registry.example")
Speak = Callable[[socket.socket], None]


@contextlib.contextmanager
def server(speak: Speak) -> Iterator[str]:
    """Yields `host:port` of a server that reads a request and then says what `speak` says."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection, contextlib.suppress(OSError):
                    connection.recv(65536)
                    speak(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture
def client() -> Iterator[HttpClient]:
    timeouts = Timeouts(connect=2.0, stall=5.0, rate=HASTY)
    with contextlib.closing(HttpClient(timeouts=timeouts)) as made:
        yield made


def drip(head: bytes, piece: bytes, *, every: float = 0.02) -> Speak:
    def speak(connection: socket.socket) -> None:
        connection.sendall(head)
        until = time.monotonic() + 20.0
        while time.monotonic() < until:
            connection.sendall(piece)
            time.sleep(every)

    return speak


@pytest.mark.parametrize(
    "speak",
    [
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
        drip(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        drip(b"HTTP/1.1 ", b"2"),
        drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n", every=0.1),
    ],
    ids=["body", "chunks", "chunk extension", "header", "status line", "interim answers"],
)
def test_a_server_that_drips_is_cut_off_wherever_it_does(client: HttpClient, speak: Speak) -> None:
    with (
        server(speak) as host,
        pytest.raises(errors.RegistryUnavailable, match="bytes a second"),
        client.send("GET", f"http://{host}/", headers={}) as reply,
    ):
        reply.read(1 << 20)


def test_a_request_has_a_total_however_fast_its_bytes_come() -> None:
    rate = Rate(window=10.0, least=1, total=0.5)
    fast = drip(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", every=0.001
    )
    with (
        contextlib.closing(HttpClient(timeouts=Timeouts(rate=rate))) as client,
        server(fast) as host,
        pytest.raises(errors.RegistryUnavailable, match="takes longer"),
        client.send("GET", f"http://{host}/", headers={}) as reply,
    ):
        reply.read(1 << 30)


def test_large_bodies_have_the_time_that_their_bytes_take() -> None:
    assert Rate(least=1000, total=10.0).seconds_for(1_000_000) == 1010.0


class Still:
    """A connection over which nothing comes; says whether it was cut."""

    def __init__(self) -> None:
        self.bytes = 0
        self.was_cut = False

    def moved(self) -> int:
        return self.bytes

    def cut(self) -> None:
        self.was_cut = True


def test_the_rate_is_measured_anew_in_every_window() -> None:
    wire = Still()
    pace = Pace(wire, Rate(window=10.0, least=100, total=1000.0), size=0, now=0.0)

    for now, moved, cut in [
        (9.0, 0, False),
        (10.0, 1000, False),
        (20.0, 2000, False),
        (30.0, 2999, True),
    ]:
        wire.bytes = moved
        pace.look(now)
        assert wire.was_cut is cut


@pytest.mark.parametrize("most", [0, 10, 99_999])
def test_no_more_is_read_than_was_asked_for(client: HttpClient, most: int) -> None:
    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 206 Partial\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"10000\r\n" + b"z" * 65536 + b"\r\n")

    taken = 0
    with (
        server(endless) as host,
        client.send("GET", f"http://{host}/", headers={}) as reply,
        pytest.raises(TooLong),
    ):
        for chunk in reply.chunks(most):
            taken += len(chunk)

    assert taken == most


def encoded(encoding: str, body: bytes) -> Speak:
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    return lambda connection: connection.sendall(head.encode() + body)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(b'{"a": 1}')),
        ("X-GZIP", gzip.compress(b'{"a": 1}')),
        ("x-gzip", b'{"a": 1}'),
        ("identity", b'{"a": 1}'),
    ],
)
def test_a_document_that_came_encoded_unasked_is_decoded(
    client: HttpClient, encoding: str, body: bytes
) -> None:
    with (
        server(encoded(encoding, body)) as host,
        client.send("GET", f"http://{host}/", headers={}) as reply,
    ):
        assert reply.document(100) == {"a": 1}


@pytest.mark.parametrize(
    ("encoding", "body", "error"),
    [
        ("br", b"{}", errors.RegistryProtocol),
        ("gzip", gzip.compress(b"{}")[:-9], errors.RegistryProtocol),
        ("gzip", b"\x1f\x8b" + b"x" * 20, errors.RegistryProtocol),
        ("gzip", gzip.compress(b" " * (1 << 20)), TooLong),
    ],
    ids=["an unknown encoding", "cut off", "damaged", "a bomb"],
)
def test_a_document_whose_encoding_cannot_be_read_is_refused_in_words(
    client: HttpClient, encoding: str, body: bytes, error: type[errors.LnsError]
) -> None:
    with (
        server(encoded(encoding, body)) as host,
        client.send("GET", f"http://{host}/", headers={}) as reply,
        pytest.raises(error),
    ):
        reply.document(2000)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize(
    "name",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0", "localhost", "[::ffff:127.0.0.1]"],
)
def test_a_server_elsewhere_cannot_send_us_to_this_machine(client: HttpClient, name: str) -> None:
    asked = []
    with server(lambda connection: (asked.append(1), connection.sendall(OK))[1]) as host:
        url = f"http://{name}:{host.rpartition(':')[2]}/"
        with pytest.raises(errors.RegistryProtocol, match="sends us to"):
            client.send("GET", url, headers={}, sender=STRANGER)

    assert not asked


def test_a_kept_connection_is_judged_again(client: HttpClient) -> None:
    with server(lambda connection: connection.sendall(OK)) as host:
        with client.send("GET", f"http://{host}/", headers={}) as reply:
            reply.read(2)
        with pytest.raises(errors.RegistryProtocol, match="sends us to"):
            client.send("GET", f"http://{host}/", headers={}, sender=STRANGER)


def test_a_server_of_this_machine_may_send_us_to_another_of_it(client: HttpClient) -> None:
    with server(lambda one: one.sendall(OK)) as first, server(lambda one: one.sendall(OK)) as other:
        with client.send("GET", f"http://{first}/", headers={}):
            pass
        sender = Origin.of_url(f"http://{first}")
        with client.send("GET", f"http://{other}/", headers={}, sender=sender) as reply:
            assert reply.read(2) == b"ok"


def test_a_name_without_an_address_is_distinguished(client: HttpClient) -> None:
    with pytest.raises(HostUnknown, match=r"registry\.invalid.*has no address") as caught:
        client.send("GET", "http://registry.invalid/v2/", headers={})

    assert "spelling" in caught.value.hint
