"""A kernel from an address: over TLS or with its digest, bounded, and whole."""

import hashlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from cli.setup import downloads
from cli.setup.downloads import fetch
from services.core.errors import HostUnready, LnsError, RequestInvalid

CONTENT = b"a kernel" * 1000
DIGEST = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/kernel?token=s3cret":
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT)
        elif self.path == "/downgrade":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/kernel")
            self.end_headers()
        else:
            self.send_error(404)

    def log_request(self, *_: object) -> None:
        """Nobody reads it."""

    log_error = log_request


def served(tls: ssl.SSLContext | None) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def plain() -> Iterator[str]:
    yield from served(None)


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    yield from served(context)


def test_what_is_served_over_tls_is_taken_with_its_digest(tls: str, tmp_path: Path) -> None:
    target = tmp_path / "kernel"

    assert fetch(f"{tls}/kernel?token=s3cret", target) == DIGEST
    assert target.read_bytes() == CONTENT


def test_without_tls_the_digest_must_be_stated_and_right(plain: str, tmp_path: Path) -> None:
    address = f"{plain}/kernel?token=s3cret"

    with pytest.raises(RequestInvalid, match="could exchange") as unstated:
        fetch(address, tmp_path / "a")
    with pytest.raises(HostUnready, match=f"is {DIGEST}, not") as wrong:
        fetch(address, tmp_path / "b", digest=f"sha256:{'0' * 64}")

    assert fetch(address, tmp_path / "c", digest=DIGEST) == DIGEST
    assert "s3cret" not in f"{unstated.value}{wrong.value}"


@pytest.mark.parametrize(
    ("path", "said"), [("/downgrade", "without TLS"), ("/absent", "Not Found")]
)
def test_what_cannot_be_fetched_is_said_with_the_reason(
    tls: str, tmp_path: Path, path: str, said: str
) -> None:
    with pytest.raises(HostUnready, match=said):
        fetch(tls + path, tmp_path / "kernel")


def test_a_server_that_sends_without_end_is_left(
    tls: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "FILE_MOST", 1000)

    with pytest.raises(HostUnready, match="takes more than"):
        fetch(f"{tls}/kernel?token=s3cret", tmp_path / "kernel")


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "ftp://host/x", "https://", "https://user:word@host/x"]
)
def test_an_address_of_another_kind_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(LnsError, match="neither a file nor") as caught:
        fetch(address, tmp_path / "kernel")

    assert "word" not in str(caught.value)
