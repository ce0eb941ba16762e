"""One request: its timeouts, its limits, its cancelling, its certificates."""

import contextlib
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from services.chassis import context
from services.core import errors
from services.registry_gateway.adapters.transport.http_client import HttpClient, Timeouts
from services.registry_gateway.adapters.transport.http_reply import Truncated
from services.registry_gateway.adapters.transport.origin import Origin
from services.registry_gateway.progress import Stop

BODY = b'{"a": 1}'


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/slow":
            time.sleep(30)  # until the client cuts the connection or the test is over
        size = {"/short": len(BODY) + 5, "/large": 1 << 22}.get(self.path, len(BODY))
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.send_header("Link", '</v2/next?n=1>; rel="next", <x>; rel=other, broken')
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(b"[" * size if self.path == "/large" else BODY)
        self.close_connection = self.path == "/short"

    def log_message(self, *_: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Says nothing when a client goes away."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serve(tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """Yields `host:port` of a server on loopback."""
    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with serve() as running:
        yield running


@pytest.fixture
def client() -> Iterator[HttpClient]:
    with contextlib.closing(HttpClient(timeouts=Timeouts(connect=1.0, stall=2.0))) as made:
        yield made


def get(client: HttpClient, url: str, **more: Any) -> Any:
    return client.send("GET", url, headers={}, **more)


def test_an_answer_has_status_headers_links_and_a_body(client: HttpClient, host: str) -> None:
    with get(client, f"http://{host}/x") as reply:
        assert (reply.status_code, reply.length) == (200, len(BODY))
        assert reply.links == {"next": {"url": "/v2/next?n=1"}, "other": {"url": "x"}}
        assert reply.document() == {"a": 1}


def test_connections_are_used_again(client: HttpClient, host: str) -> None:
    for _ in range(3):
        with get(client, f"http://{host}/x") as reply:
            reply.read(100)
    pool = client._pools.connection_from_url(f"http://{host}")

    assert pool.num_connections == 1


def test_a_body_above_the_limit_is_refused(client: HttpClient, host: str) -> None:
    with get(client, f"http://{host}/large") as reply, pytest.raises(errors.LimitExceeded):
        reply.read(1 << 20)


def test_a_body_that_ends_too_early_is_distinguished(client: HttpClient, host: str) -> None:
    with get(client, f"http://{host}/short") as reply, pytest.raises(Truncated):
        list(reply.chunks(100))


def test_a_silent_server_is_given_up(host: str) -> None:
    impatient = HttpClient(timeouts=Timeouts(connect=1.0, stall=0.1))
    with contextlib.closing(impatient), pytest.raises(errors.RegistryUnavailable):
        get(impatient, f"http://{host}/slow")


def test_the_deadline_of_the_call_is_kept(client: HttpClient, host: str) -> None:
    def call() -> None:
        context.set_remaining(0.1)
        # Not the registry's fault, so not RegistryUnavailable: whoever waits longer may succeed.
        with pytest.raises(errors.DeadlineExceeded):
            get(client, f"http://{host}/slow")
        with pytest.raises(errors.DeadlineExceeded):
            get(client, f"http://{host}/x")

    began = time.monotonic()
    context.detached().run(call)
    assert time.monotonic() - began < 1.0


def test_a_request_that_waits_is_cut_from_another_thread(client: HttpClient, host: str) -> None:
    stop = Stop()
    timer = threading.Timer(0.1, stop.set)
    timer.start()

    began = time.monotonic()
    with pytest.raises(errors.DeadlineExceeded):
        get(client, f"http://{host}/slow", stop=stop)
    timer.join()

    assert time.monotonic() - began < 1.0
    with pytest.raises(errors.DeadlineExceeded):
        get(client, f"http://{host}/x", stop=stop)


def test_an_unreachable_server_is_unavailable_without_the_query_in_the_message(
    client: HttpClient,
) -> None:
    with pytest.raises(errors.RegistryUnavailable) as caught:
        get(client, "http://127.0.0.1:1/v2/?token=canary")

    assert caught.value.message == "127.0.0.1:1 does not answer: Connection refused"


def test_the_shortest_latency_of_an_origin_is_remembered(client: HttpClient, host: str) -> None:
    origin = Origin.of_url(f"http://{host}")
    assert client.latency(origin) is None
    for _ in range(2):
        with get(client, f"http://{host}/x"):
            pass

    assert 0 < (client.latency(origin) or 0) < 1.0


@pytest.mark.parametrize(
    ("name", "trusted", "works"),
    [("127.0.0.1", True, True), ("127.0.0.1", False, False), ("other.example", True, False)],
    ids=["trusted", "a stranger", "another name"],
)
def test_certificates_are_checked(tmp_path: Path, name: str, *, trusted: bool, works: bool) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(server)
    ca_file = tmp_path / "ca.pem"
    (authority if trusted else trustme.CA()).cert_pem.write_to_path(str(ca_file))
    client = HttpClient(timeouts=Timeouts(connect=2.0, stall=2.0), ca_files=[ca_file])
    with serve(server) as host, contextlib.closing(client):
        if works:
            with get(client, f"https://{host}/x") as reply:
                assert reply.document() == json.loads(BODY)
        else:
            with pytest.raises(errors.RegistryProtocol, match="no secure connection"):
                get(client, f"https://{host}/x")


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_an_authority_file_that_is_invalid_is_a_wrong_setting(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)

    with pytest.raises(errors.SettingsInvalid) as caught:
        HttpClient(timeouts=Timeouts(), ca_files=[path])
    assert str(path) in caught.value.message
