"""Which registry is reached through which proxy, and what a proxy is shown."""

import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import trustme

from services.core import errors
from services.registry_gateway.adapters.transport.http_client import HttpClient, Timeouts
from services.registry_gateway.adapters.transport.origin import Origin
from services.registry_gateway.adapters.transport.proxies import Proxies, Proxy

P = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("url", "exceptions", "proxied"),
    [
        ("https://registry.example", [], True),
        ("https://registry.example", ["registry.example"], False),
        ("https://registry.example", ["REGISTRY.example"], False),
        ("https://registry.example", ["example"], False),
        ("https://registry.example", [".example"], False),
        ("https://registry.example", ["*.example"], False),
        ("https://registry.example", ["xample"], True),
        ("https://registry.example", ["other.example", "*"], False),
        ("https://registry.example", ["registry.example:443"], False),
        ("https://registry.example", ["registry.example:5000"], True),
        ("https://registry.example:5000", ["registry.example:5000"], False),
        ("https://registry.example", [""], True),
        ("https://10.1.2.3", ["10.0.0.0/8"], False),
        ("https://10.1.2.3", ["10.1.2.3"], False),
        ("https://11.1.2.3", ["10.0.0.0/8"], True),
        ("https://[fd00::5]", ["fd00::/8"], False),
        ("https://[fd00::5]:5000", ["[fd00::5]:5000"], False),
        ("http://127.0.0.1:5000", [], False),
        ("http://localhost:5000", [], False),
    ],
)
def test_exceptions_are_those_of_no_proxy(
    url: str, exceptions: list[str], *, proxied: bool
) -> None:
    proxies = Proxies(http=P, https=P, exceptions=exceptions)

    assert (proxies.of(Origin.of_url(url)) is not None) is proxied


def test_the_setting_of_a_registry_comes_before_all_others() -> None:
    by_host = {"a.example": "http://own:1", "b.example:5000": "direct"}
    proxies = Proxies(by_host=by_host, https=P, exceptions=["*"])

    assert proxies.of(Origin.of_url("https://a.example")) == Proxy("http://own:1")
    assert proxies.of(Origin.of_url("https://b.example:5000")) is None
    assert proxies.of(Origin.of_url("https://c.example")) is None
    assert Proxies(https=P).of(Origin.of_url("http://c.example")) is None


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://p:3128", Proxy("http://p:3128")),
        ("p:3128", Proxy("http://p:3128")),
        ("https://p", Proxy("https://p:443")),
        ("http://me:p%40ss@p:1/", Proxy("http://p:1", "me:p@ss")),
        ("http://[::1]:1", Proxy("http://[::1]:1")),
    ],
)
def test_an_address_of_a_proxy_is_read_with_its_login(text: str, proxy: Proxy) -> None:
    assert Proxy.parse(text) == proxy
    assert "p@ss" not in repr(Proxy.parse(text))


@pytest.mark.parametrize("text", ["socks5://p:1", "http://", "http://p:x", "file:///x"])
def test_what_is_no_proxy_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(errors.SettingsInvalid):
        Proxy.parse(text)


class Server:
    """A proxy that answers for every registry, after its own TLS and that of the tunnel."""

    def __init__(self, *, login: str = "", outer: ssl.SSLContext | None = None) -> None:
        self.login = login
        self.outer = outer
        self.inner: ssl.SSLContext | None = None
        self.heads: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), connection:
                connection.settimeout(5.0)
                wire = connection
                if self.outer is not None:
                    wire = self.outer.wrap_socket(connection, server_side=True)
                with wire:
                    self._answer(wire)

    def _answer(self, wire: socket.socket) -> None:
        head = wire.recv(65536).decode()
        self.heads.append(head)
        wanted = "Basic " + base64.b64encode(self.login.encode()).decode()
        if self.login and f"proxy-authorization: {wanted}".lower() not in head.lower():
            wire.sendall(b"HTTP/1.1 407 Login wanted\r\nContent-Length: 0\r\n\r\n")
        elif head.startswith("CONNECT") and self.inner is not None:
            wire.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            self._tunnel(wire, self.inner)
        else:
            wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            wire.recv(1)

    def _tunnel(self, wire: socket.socket, inner: ssl.SSLContext) -> None:
        """Answers inside the tunnel, through a pair of sockets: `ssl` wraps no TLS socket."""
        near, far = socket.socketpair()
        pumps = [threading.Thread(target=_pump, args=pair) for pair in ((wire, near), (near, wire))]
        for pump in pumps:
            pump.start()
        with contextlib.suppress(OSError), inner.wrap_socket(far, server_side=True) as tunnel:
            self.heads.append(tunnel.recv(65536).decode())
            tunnel.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            tunnel.recv(1)
        for pump in pumps:
            pump.join()
        near.close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


def ask(proxies: Proxies, url: str, ca_files: Sequence[Path] = ()) -> bytes:
    client = HttpClient(timeouts=Timeouts(), proxies=proxies, ca_files=ca_files)
    with (
        contextlib.closing(client),
        client.send("GET", url, headers={"Authorization": "Basic c2VjcmV0"}) as reply,
    ):
        return reply.read(100)


def test_a_registry_without_tls_is_asked_by_its_whole_url(proxy: Server) -> None:
    proxies = Proxies(http=f"http://{proxy.host}")

    assert ask(proxies, "http://registry.example/v2/") == b"ok"
    assert proxy.heads[0].startswith("GET http://registry.example/v2/ HTTP/1.1")


def test_the_proxy_is_shown_its_login_and_a_missing_one_is_reported(proxy: Server) -> None:
    proxy.login = "me:secret"

    assert ask(Proxies(http=f"http://me:secret@{proxy.host}"), "http://registry.example/") == b"ok"
    with pytest.raises(errors.RegistryDenied, match="wants a login"):
        ask(Proxies(http=f"http://{proxy.host}"), "http://registry.example/")
    with pytest.raises(errors.RegistryDenied, match="refused the login") as caught:
        ask(Proxies(https=f"http://me:wrong1@{proxy.host}"), "https://registry.example/")
    assert "wrong1" not in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize("outer", [False, True], ids=["plain", "TLS to the proxy"])
def test_a_registry_with_tls_is_reached_through_a_tunnel(
    proxy: Server, tmp_path: Path, *, outer: bool
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    proxy.inner = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("registry.example").configure_cert(proxy.inner)
    if outer:
        proxy.outer = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(proxy.outer)
    scheme = "https" if outer else "http"
    proxies = Proxies(https=f"{scheme}://me:secret@{proxy.host}")

    assert ask(proxies, "https://registry.example/v2/", ca_files=[tmp_path / "ca.pem"]) == b"ok"
    connect, request = proxy.heads
    assert connect.startswith("CONNECT registry.example:443")
    assert "\r\nauthorization:" not in connect.lower()
    assert "proxy-authorization" not in request.lower()


def test_a_proxy_that_does_not_exist_is_named_and_not_the_registry() -> None:
    with pytest.raises(
        errors.RegistryUnavailable, match=r"the proxy http://127\.0\.0\.1:1 "
    ) as caught:
        ask(Proxies(https="http://127.0.0.1:1"), "https://registry.example/")

    assert "NO_PROXY" in caught.value.hint


@pytest.mark.parametrize("url", ["http://127.1:9/", "http://2130706433/", "http://10.0.0.1/"])
def test_what_a_registry_names_is_judged_by_its_name_behind_a_proxy(
    proxy: Server, url: str
) -> None:
    client = HttpClient(timeouts=Timeouts(), proxies=Proxies(http=f"http://{proxy.host}"))
    with contextlib.closing(client), pytest.raises(errors.RegistryProtocol, match="sends us to"):
        client.send("GET", url, headers={}, sender=Origin.of_url("https://registry.example"))

    assert not proxy.heads
