"""What is sent again, what follows a redirect, and who is shown a login."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import pytest

from services.core import errors
from services.registry_gateway.adapters.credentials.authenticator import Access, Authenticator
from services.registry_gateway.adapters.registry.exchange import (
    MAX_REDIRECTS,
    Exchange,
    Request,
    RetryPolicy,
)
from services.registry_gateway.adapters.transport.http_client import HttpClient, Timeouts
from services.registry_gateway.adapters.transport.origin import Origin
from services.registry_gateway.login_ports import Credential
from tests.support.http_messages import Response
from tests.support.http_peer import OTHER_LOOPBACK, HttpPeer
from tests.support.http_peer import Exchange as Served

BASIC = {"WWW-Authenticate": 'Basic realm="r"'}
Answer = tuple[int, Mapping[str, str]]


class Logins:
    """One login for every host."""

    def find(self, host: str, repository: str = "") -> Credential | None:
        return Credential(username="me", secret="s3cret-password")

    def problems(self, host: str, repository: str = "") -> tuple[str, ...]:
        return ()

    def forget(self, host: str) -> None:
        pass


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    policy = RetryPolicy(attempts=3, base=0.001, longest=0.001)
    with contextlib.closing(HttpClient(timeouts=Timeouts())) as http:
        yield Exchange(http, Authenticator(http, Logins()), policy=policy)


@contextlib.contextmanager
def peer(answer: Callable[[Served], Answer | None], **more: str) -> Iterator[HttpPeer]:
    """A server that answers without a body; where there is no answer, the connection breaks."""

    def serve(served: Served) -> None:
        served.read_body()
        answered = answer(served)
        if answered is None:
            served.abort()
            return
        status, headers = answered
        sent = [*headers.items(), ("Content-Length", "0")]
        served.send(Response(status=status, headers=sent, body=iter([])))

    with HttpPeer(serve, **more) as made:
        yield made


def request(method: str, url: str, **more: object) -> Request:
    made = Request(method=method, url=url, access=Access.to("x", "pull"), headers={})
    return replace(made, **more)  # type: ignore[arg-type]  # fields by name


def status(exchange: Exchange, asked: Request) -> int:
    with exchange.send(asked) as reply:
        return reply.status_code


@pytest.mark.parametrize(
    ("retried", "failure", "expected"),
    [
        (True, None, 3),
        (False, None, 1),  # whether it took effect is unknown
        (True, (503, {}), 3),
        (False, (503, {}), 3),  # it was answered, and did not
        (True, (429, {"Retry-After": "3600"}), 1),
        (True, (501, {}), 1),
    ],
)
def test_a_failure_is_met_with_as_many_tries_as_do_no_harm(
    exchange: Exchange, retried: bool, failure: Answer | None, expected: int
) -> None:
    tries = []

    def answer(served: Served) -> Answer | None:
        tries.append(served.request.method)
        return failure

    with peer(answer) as registry, contextlib.suppress(errors.LnsError):
        status(exchange, request("PATCH", f"{registry.url}/u", retried=retried))

    assert len(tries) == expected


def test_a_login_stays_with_its_origin_when_a_redirect_leaves_it(exchange: Exchange) -> None:
    shown: list[str | None] = []

    def storage(served: Served) -> Answer:
        shown.append(served.request.headers.get("authorization"))
        return 200, {}

    with peer(storage, address=OTHER_LOOPBACK) as other:

        def registry(served: Served) -> Answer:
            if "authorization" not in served.request.headers:
                return 401, BASIC
            return 307, {"Location": f"{other.url}/blob"}

        with peer(registry) as here:
            assert status(exchange, request("GET", f"{here.url}/v2/x/blobs/1")) == 200

    assert shown == [None]


def test_a_login_goes_along_where_a_redirect_stays(exchange: Exchange) -> None:
    shown: list[bool] = []

    def registry(served: Served) -> Answer:
        shown.append("authorization" in served.request.headers)
        if not shown[-1]:
            return 401, BASIC
        return (200, {}) if served.request.target == "/moved" else (307, {"Location": "/moved"})

    with peer(registry) as here:
        assert status(exchange, request("GET", f"{here.url}/v2/x/blobs/1")) == 200

    assert shown == [False, True, True]


def test_a_place_of_another_origin_is_shown_no_login(exchange: Exchange) -> None:
    shown: list[str | None] = []

    def storage(served: Served) -> Answer:
        shown.append(served.request.headers.get("authorization"))
        return 401, BASIC

    with peer(storage, address=OTHER_LOOPBACK) as other, peer(lambda _: (200, {})) as here:
        assert status(exchange, request("POST", f"{here.url}/uploads")) == 200
        asked = request("PUT", f"{other.url}/upload", home=Origin.of_url(here.url))
        assert status(exchange, asked) == 401

    assert shown == [None]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_writes_follows_no_redirect(exchange: Exchange, method: str) -> None:
    seen = []

    def registry(served: Served) -> Answer:
        seen.append(served.request.target)
        return 307, {"Location": "/elsewhere"}

    with peer(registry) as here:
        assert status(exchange, request(method, f"{here.url}/v2/x/blobs/uploads/")) == 307

    assert seen == ["/v2/x/blobs/uploads/"]


def test_redirects_without_end_are_refused(exchange: Exchange) -> None:
    seen = []

    def registry(served: Served) -> Answer:
        seen.append(served.request.target)
        return 302, {"Location": "/again"}

    with peer(registry) as here, pytest.raises(errors.RegistryProtocol, match="redirects more"):
        status(exchange, request("GET", f"{here.url}/"))

    assert len(seen) == MAX_REDIRECTS + 1


def test_a_refusal_is_not_asked_about_without_end(exchange: Exchange) -> None:
    seen = []

    def registry(served: Served) -> Answer:
        seen.append(served.request.target)
        return 401, BASIC

    with peer(registry) as here, pytest.raises(errors.RegistryUnauthenticated):
        status(exchange, request("GET", f"{here.url}/"))

    assert len(seen) == 2
