"""Tokens are kept by origin, service and access, and no longer than they live."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from services.core import errors
from services.registry_gateway.adapters.credentials.authenticator import Access, Authenticator
from services.registry_gateway.adapters.transport.origin import Origin
from services.registry_gateway.login_ports import Credential

REGISTRY = Origin.of_url("https://registry.example")
OTHER = Origin.of_url("https://other.example")
REALM = "https://auth.example/token"
PULL = Access.to("a", "pull")
PUSH = Access.to("a", "pull,push")


@dataclass
class Answer:
    """What an HTTP request is answered with."""

    status_code: int = 401
    body: object = None
    challenges: list[str] = field(default_factory=list)
    url: str = "https://registry.example/v2/"

    def header_values(self, name: str) -> list[str]:
        return self.challenges

    def document(self) -> Any:
        if not isinstance(self.body, dict):
            raise errors.RegistryProtocol("not an object")
        return self.body

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Tokens:
    """The token server, by what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Mapping[str, str], bytes | None]] = []
        self.answer: Answer | None = None

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        stop: object = None,
        sender: Origin | None = None,
    ) -> Answer:
        self.asked.append((method, url, headers, body))
        number = len(self.asked)
        return self.answer or Answer(
            status_code=200, body={"token": f"t{number}", "expires_in": 300}
        )


class Known:
    """Credentials by host, and by repository."""

    def __init__(self, **by_host: Credential) -> None:
        self.by_host = by_host
        self.by_repository: dict[tuple[str, str], Credential] = {}
        self.forgotten: list[str] = []

    def find(self, host: str, repository: str = "") -> Credential | None:
        by_host = self.by_host.get(host.replace(".", "_"))
        return self.by_repository.get((host, repository), by_host)

    def problems(self, host: str, repository: str = "") -> tuple[str, ...]:
        return ()

    def forget(self, host: str) -> None:
        self.forgotten.append(host)


USER = Credential(username="me", secret="pässword")


@dataclass
class World:
    tokens: Tokens
    known: Known
    now: float = 0.0

    def __post_init__(self) -> None:
        self.authenticator = Authenticator(
            self.tokens,  # type: ignore[arg-type]  # what it uses of a client
            self.known,
            clock=lambda: self.now,
        )

    def refuse(
        self, *challenges: str, sent: str = "", access: Access = PULL, at: Origin = REGISTRY
    ) -> None:
        answer = Answer(challenges=list(challenges))
        offered = self.authenticator.refused(at, access, answer, sent)  # type: ignore[arg-type]  # see above
        self.authenticator.accepted(at, offered)

    def header(self, access: Access = PULL, at: Origin = REGISTRY) -> str:
        return self.authenticator.header(at, access)


BEARER = f'Bearer realm="{REALM}",service="registry.example"'


@pytest.fixture
def world() -> World:
    return World(Tokens(), Known(registry_example=USER))


def test_the_first_request_shows_nothing(world: World) -> None:
    assert world.header() == ""
    assert world.tokens.asked == []


def test_basic_credentials_are_shown_from_the_first_challenge_on(world: World) -> None:
    world.refuse('Basic realm="x"')

    encoded = base64.b64encode("me:pässword".encode()).decode()
    assert world.header() == f"Basic {encoded}"


def test_basic_credentials_that_are_refused_are_not_shown_again_and_again(world: World) -> None:
    world.refuse('Basic realm="x"')

    with pytest.raises(errors.RegistryUnauthenticated, match="refused the login"):
        world.refuse('Basic realm="x"', sent=world.header())


def test_without_credentials_a_basic_challenge_wants_a_login() -> None:
    world = World(Tokens(), Known())

    with pytest.raises(errors.RegistryUnauthenticated) as caught:
        world.refuse('Basic realm="x"')
    assert caught.value.hint == "lns login registry.example"


@pytest.mark.parametrize("challenges", [(), ("Negotiate",), ("Digest realm=x",), ("",)])
def test_a_challenge_that_nobody_can_meet_is_an_error(
    world: World, challenges: tuple[str, ...]
) -> None:
    with pytest.raises(errors.RegistryUnauthenticated):
        world.refuse(*challenges)


def test_bearer_is_taken_before_basic(world: World) -> None:
    world.refuse('Basic realm="x"', BEARER)

    assert world.header() == "Bearer t1"


def test_a_token_is_asked_for_with_service_scope_and_account(world: World) -> None:
    world.refuse(BEARER)
    world.header(PUSH.and_pull("b"))

    ((method, url, headers, _),) = world.tokens.asked
    assert method == "GET"
    assert url == (
        f"{REALM}?service=registry.example&scope=repository%3Aa%3Apull%2Cpush"
        "&scope=repository%3Ab%3Apull&account=me&client_id=lns"
    )
    assert headers["Authorization"].startswith("Basic ")


def test_an_anonymous_token_is_asked_for_without_credentials() -> None:
    world = World(Tokens(), Known())
    world.refuse(BEARER)

    assert world.header() == "Bearer t1"
    ((_, url, headers, _),) = world.tokens.asked
    assert "account" not in url
    assert dict(headers) == {}


def test_an_identity_token_is_exchanged_by_post_and_never_in_the_url() -> None:
    world = World(Tokens(), Known(registry_example=Credential(username="", secret="identity")))
    world.refuse(BEARER)
    world.header()

    ((method, url, _, body),) = world.tokens.asked
    assert (method, url) == ("POST", REALM)
    assert body == (
        b"service=registry.example&grant_type=refresh_token&refresh_token=identity"
        b"&client_id=lns&scope=repository%3Aa%3Apull"
    )


def test_a_token_is_fetched_once_for_each_set_of_scopes(world: World) -> None:
    world.refuse(BEARER)

    assert [world.header(PULL), world.header(PUSH), world.header(PULL)] == [
        "Bearer t1",
        "Bearer t2",
        "Bearer t1",
    ]


def test_a_repository_with_a_login_of_its_own_is_shown_that(world: World) -> None:
    world.known.by_repository["registry.example", "b"] = Credential(username="b", secret="x")
    world.refuse('Basic realm="x"')

    shown = [world.header(Access.to(path, "pull")) for path in ("a", "b")]

    assert [base64.b64decode(one.split()[1]).decode() for one in shown] == ["me:pässword", "b:x"]


def test_a_token_for_a_repository_with_a_login_of_its_own_is_asked_for_with_that(
    world: World,
) -> None:
    world.known.by_repository["registry.example", "b"] = Credential(username="b", secret="x")
    world.refuse(BEARER)

    for path in ("a", "b"):
        world.header(Access.to(path, "pull"))

    assert ["account=b&" in url for _, url, _, _ in world.tokens.asked] == [False, True]


def test_a_token_of_one_login_is_not_shown_for_another(world: World) -> None:
    world.refuse(BEARER + ',scope="everything"')

    assert world.header(Access("a")) != world.header(Access("b"))


def test_a_token_is_not_shown_to_another_origin(world: World) -> None:
    world.refuse(BEARER)
    world.header()

    assert world.header(at=OTHER) == ""
    assert world.header(at=Origin.of_url("http://registry.example")) == ""
    assert world.header(at=Origin.of_url("https://registry.example:5000")) == ""


def test_the_credentials_of_one_host_do_not_go_to_the_realm_of_another(world: World) -> None:
    world.refuse(BEARER, at=OTHER)
    world.header(at=OTHER)

    ((_, _, headers, _),) = world.tokens.asked
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    ("expires_in", "good_until"),
    [
        (300, 290),
        (20, 10),
        (10, 5),
        (1, 0.5),
        (None, 50),
        (0, 50),
        (-5, 50),
        ("x", 50),
        (10**9, 3590),
    ],
)
def test_a_token_is_replaced_a_little_before_it_expires(
    world: World, expires_in: object, good_until: float
) -> None:
    world.refuse(BEARER)
    world.tokens.answer = Answer(
        status_code=200, body={"access_token": "t", "expires_in": expires_in}
    )

    world.header()
    world.now = good_until - 0.01
    world.header()
    assert len(world.tokens.asked) == 1
    world.now = good_until
    world.header()
    assert len(world.tokens.asked) == 2


def test_a_token_that_the_registry_refuses_is_replaced(world: World) -> None:
    world.refuse(BEARER)
    first = world.header()
    world.refuse(BEARER, sent=first)

    assert (first, world.header()) == ("Bearer t1", "Bearer t2")


def test_a_refusal_of_an_older_token_does_not_drop_a_newer_one(world: World) -> None:
    world.refuse(BEARER)
    first = world.header()
    world.refuse(BEARER, sent=first)
    second = world.header()
    world.refuse(BEARER, sent=first)  # another thread was slower

    assert world.header() == second


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_token_server_that_refuses_means_a_wrong_login(world: World, status: int) -> None:
    world.refuse(BEARER)
    world.tokens.answer = Answer(status_code=status)

    with pytest.raises(errors.RegistryUnauthenticated):
        world.header()


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_a_token_server_that_fails_is_a_registry_that_fails(world: World, status: int) -> None:
    world.refuse(BEARER)
    world.tokens.answer = Answer(status_code=status)

    with pytest.raises(errors.RegistryUnavailable):
        world.header()


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"token": 7},
        {"token": ""},
        {"token": "a\r\nX-Injected: 1"},
        {"token": "x" * 100_000},
        {"token": "tökén"},
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_what_is_no_token_is_refused(world: World, document: object) -> None:
    world.refuse(BEARER)
    world.tokens.answer = Answer(status_code=200, body=document)

    with pytest.raises(errors.RegistryProtocol):
        world.header()


@pytest.mark.parametrize("realm", ["", "Registry", "file:///x", "http://auth.example/token", "//x"])
def test_a_realm_that_must_not_see_a_login_does_not(world: World, realm: str) -> None:
    world.refuse(f'Bearer realm="{realm}"')

    with pytest.raises(errors.RegistryProtocol):
        world.header()
    assert world.tokens.asked == []


def test_what_the_registry_asks_for_counts_where_nothing_is_asked_for(world: World) -> None:
    world.refuse(BEARER + ',scope="registry:catalog:*"', access=Access())
    world.header(Access())

    assert "scope=registry%3Acatalog%3A%2A" in world.tokens.asked[0][1]


def test_a_new_login_drops_what_the_old_one_got(world: World) -> None:
    world.refuse(BEARER)
    world.header()
    world.authenticator.forget("registry.example")

    assert world.header() == ""
    assert world.known.forgotten == ["registry.example"]


def test_a_secret_does_not_show_in_what_is_printed() -> None:
    assert "pässword" not in repr(USER)
    assert "pässword" not in f"{USER} {[USER]}"
