"""What a registry says about logins, and what it must not gain by it."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from services.core import errors
from services.registry_gateway.adapters.credentials.authenticator import Access, Authenticator
from services.registry_gateway.adapters.registry.exchange import Exchange, Request, RetryPolicy
from services.registry_gateway.adapters.registry.registry_errors import error_of
from services.registry_gateway.adapters.transport.http_client import HttpClient, Timeouts
from services.registry_gateway.login_ports import Credential
from tests.support.http_messages import Response
from tests.support.http_peer import OTHER_LOOPBACK, HttpPeer
from tests.support.http_peer import Exchange as Served

LOGIN = Credential(username="me", secret="s3cret-password")
Answer = tuple[int, Mapping[str, str], bytes]


@dataclass
class Logins:
    """One login for every host."""

    asked: list[str] = field(default_factory=list)

    def find(self, host: str, repository: str = "") -> Credential | None:
        self.asked.append(host)
        return LOGIN

    def problems(self, host: str, repository: str = "") -> tuple[str, ...]:
        return ()

    def forget(self, host: str) -> None:
        pass


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with contextlib.closing(HttpClient(timeouts=Timeouts())) as http:
        yield Exchange(http, Authenticator(http, Logins()), policy=RetryPolicy(attempts=1))


def peer(answer: Callable[[Mapping[str, str], str], Answer], **more: str) -> HttpPeer:
    def serve(served: Served) -> None:
        status, headers, body = answer(served.request.headers, served.request.target)
        sent = [*headers.items(), ("Content-Length", str(len(body)))]
        served.send(Response(status=status, headers=sent, body=iter([body])))

    return HttpPeer(serve, **more)


def get(exchange: Exchange, url: str) -> int:
    request = Request(method="GET", url=url, access=Access.to("x", "pull"), headers={})
    with exchange.send(request) as reply:
        return reply.status_code


@pytest.mark.parametrize(
    "false",
    [
        'Bearer realm="http://192.0.2.1/token"',
        'Bearer realm="file:///etc/passwd"',
        'Bearer realm=""',
        'Basic realm="x"',
        "Negotiate",
    ],
)
def test_one_false_challenge_does_not_spoil_what_comes_later(
    exchange: Exchange, false: str
) -> None:
    challenges = [false]

    def answer(headers: Mapping[str, str], target: str) -> Answer:
        if challenges:
            if "authorization" in headers:
                return 401, {"WWW-Authenticate": "Negotiate"}, b""
            return 401, {"WWW-Authenticate": challenges.pop()}, b""
        refused = "authorization" in headers
        return (401 if refused else 200), {}, b""

    with peer(answer) as registry:
        with contextlib.suppress(errors.LnsError):
            get(exchange, f"{registry.url}/v2/x/tags/list")
        challenges.clear()
        assert get(exchange, f"{registry.url}/v2/x/tags/list") == 200


def test_a_challenge_that_led_to_success_is_kept(exchange: Exchange) -> None:
    seen = []

    def answer(headers: Mapping[str, str], target: str) -> Answer:
        seen.append("authorization" in headers)
        if "authorization" in headers:
            return 200, {}, b""
        return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""

    with peer(answer) as registry:
        for _ in range(3):
            assert get(exchange, f"{registry.url}/v2/x/tags/list") == 200

    assert seen == [False, True, True, True]


def test_a_registry_that_moved_its_token_server_is_asked_anew(exchange: Exchange) -> None:
    place = {"now": "/old"}

    def answer(headers: Mapping[str, str], target: str) -> Answer:
        if target.startswith(("/old", "/new")):
            here = target.startswith(place["now"])
            return (200, {}, b'{"token": "abc"}') if here else (404, {}, b"")
        if headers.get("authorization") == "Bearer abc" and place["now"] == "/old":
            return 200, {}, b""
        if headers.get("authorization") == "Bearer abc" and "new" in place:
            return 200, {}, b""
        realm = f'Bearer realm="http://{headers["host"]}{place["now"]}"'
        return 401, {"WWW-Authenticate": realm}, b""

    with peer(answer) as registry:
        url = f"{registry.url}/v2/x/tags/list"
        assert get(exchange, url) == 200
        exchange.authenticator._tokens.clear()  # as if the token had expired
        place.update(now="/new", new="")
        assert get(exchange, url) == 200


@pytest.mark.parametrize("status", [401, 403])
def test_hints_name_only_the_registry_that_was_asked(exchange: Exchange, status: int) -> None:
    denial = json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": "log in here"}]}).encode()
    with peer(lambda headers, target: (status, {}, denial), address=OTHER_LOOPBACK) as elsewhere:
        sent_on = {"Location": f"{elsewhere.url}/blob"}
        with peer(lambda headers, target: (307, sent_on, b"")) as registry:
            request = Request(method="GET", url=f"{registry.url}/v2/x", access=Access(), headers={})
            with exchange.send(request) as reply:
                error = error_of(reply, what="x", not_found=errors.BlobUnknown)

    assert isinstance(error, errors.RegistryDenied)
    assert error.metadata["registry"] == registry.host
    assert "login" not in error.hint
    assert elsewhere.host not in error.hint


def test_a_registry_that_echoes_the_login_shows_nothing_of_it(exchange: Exchange) -> None:
    def answer(headers: Mapping[str, str], target: str) -> Answer:
        if "authorization" not in headers:
            return 401, {"WWW-Authenticate": 'Basic realm="x"'}, b""
        text = "x" * 270 + headers["authorization"] + " s3cret-password"
        return 403, {}, json.dumps({"errors": [{"code": "DENIED", "message": text}]}).encode()

    with peer(answer) as registry:
        request = Request(method="GET", url=f"{registry.url}/v2/x", access=Access(), headers={})
        with exchange.send(request) as reply:
            error = error_of(reply, what="x", not_found=errors.BlobUnknown)

    assert "bWU6czNj" not in error.message
    assert "s3cret" not in error.message
    assert "[mask" in error.message
