"""OAuth's device flow and refresh against a real issuer on loopback, kind and hostile."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

from services.chassis.blocking import Blocking
from services.core.errors import CredentialUnusable
from services.core.integrations.definitions import OAuthClient
from services.vm_runner.adapters.credentials.oauth_issuer import OAuthIssuer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
Answer = tuple[int, object]
Answers = Callable[[str, dict[str, str]], Answer]


class Issuer:
    """A server that answers as a test says, and keeps the forms that it was sent."""

    def __init__(self) -> None:
        self.answers: Answers = lambda _path, _form: (404, {})
        self.forms: list[dict[str, str]] = []
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                form = {name: values[0] for name, values in parse_qs(body).items()}
                issuer.forms.append(form)
                status, answer = issuer.answers(self.path, form)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        base = f"http://127.0.0.1:{self.server.server_port}"
        self.client = OAuthClient(
            device_authorization_endpoint=f"{base}/device",
            token_endpoint=f"{base}/token",
            client_id="lns",
            scopes=("read", "write"),
            audience="api",
        )


@contextlib.contextmanager
def serving() -> Iterator[Issuer]:
    """Yields an issuer that answers."""
    issuer = Issuer()
    thread = threading.Thread(target=issuer.server.serve_forever, args=(0.05,))
    thread.start()
    yield issuer
    issuer.server.shutdown()
    issuer.server.server_close()
    thread.join()


@pytest.fixture
def server() -> Iterator[Issuer]:
    with serving() as issuer:
        yield issuer


@pytest.fixture
def issuer() -> Iterator[OAuthIssuer]:
    with Blocking(2) as blocking:
        yield OAuthIssuer(blocking, now=lambda: NOW)


BEGUN = {
    "device_code": "secret-code",
    "user_code": "ABCD-EFGH",
    "verification_uri": "https://issuer.example/activate",
    "interval": 1,
    "expires_in": 600,
}


async def test_a_person_agrees_after_some_polls(server: Issuer, issuer: OAuthIssuer) -> None:
    answers = [
        (200, BEGUN),
        (400, {"error": "authorization_pending"}),
        (400, {"error": "slow_down"}),
        (200, {"access_token": "access", "refresh_token": "refresh", "expires_in": 3600}),
    ]
    server.answers = lambda _path, _form: answers[len(server.forms) - 1]

    code = await issuer.start(server.client)
    assert (code.user_code, code.verification_uri) == ("ABCD-EFGH", BEGUN["verification_uri"])
    assert await issuer.poll(server.client, code) is None
    assert await issuer.poll(server.client, code) is None
    assert code.interval == 6
    tokens = await issuer.poll(server.client, code)

    assert tokens is not None
    assert (tokens.access.value, tokens.refresh) == ("access", "refresh")
    assert tokens.access.expire_time == NOW + timedelta(hours=1)
    assert server.forms[0] == {"client_id": "lns", "scope": "read write", "audience": "api"}
    assert server.forms[1]["device_code"] == "secret-code"


async def test_tokens_are_renewed(server: Issuer, issuer: OAuthIssuer) -> None:
    server.answers = lambda _path, _form: (200, {"access_token": "next"})

    tokens = await issuer.refresh(server.client, "refresh")

    assert (tokens.access.value, tokens.access.expire_time, tokens.refresh) == ("next", None, "")
    assert server.forms[0]["grant_type"] == "refresh_token"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((400, {"error": "access_denied"}), "it was refused"),
        ((400, {"error": "expired_token"}), "it took too long"),
        ((500, {}), "status 500"),
        ((302, {}), "status 302"),
        ((200, {}), "no usable access token"),
        ((200, {"access_token": "two\nlines"}), "no usable access token"),
        ((200, b"x" * 300_000), "no usable access token"),
        ((200, b"[" * 100_000), "no usable access token"),
        ((400, {"error": "\u202eevil"}), "status 400"),
    ],
)
async def test_what_an_issuer_answers_otherwise_is_refused(
    server: Issuer, issuer: OAuthIssuer, answer: Answer, why: str
) -> None:
    server.answers = lambda path, _form: (200, BEGUN) if path == "/device" else answer
    code = await issuer.start(server.client)

    with pytest.raises(CredentialUnusable, match=why):
        await issuer.poll(server.client, code)


@pytest.mark.parametrize(
    "change",
    [
        {"user_code": None},
        {"user_code": "A" * 3000},
        {"user_code": "\u202eevil"},
        {"device_code": 5},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "http://issuer.example/"},
    ],
)
async def test_a_hostile_issuer_shows_a_person_nothing(
    server: Issuer, issuer: OAuthIssuer, change: dict[str, object]
) -> None:
    server.answers = lambda _path, _form: (200, BEGUN | change)

    with pytest.raises(CredentialUnusable):
        await issuer.start(server.client)


async def test_an_issuer_that_cannot_be_reached_is_named(issuer: OAuthIssuer) -> None:
    client = OAuthClient(
        device_authorization_endpoint="http://127.0.0.1:1/device",
        token_endpoint="http://127.0.0.1:1/token",
        client_id="lns",
    )

    with pytest.raises(CredentialUnusable, match="cannot be reached"):
        await issuer.start(client)
