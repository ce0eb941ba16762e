"""The device flow trusts the origin of the token realm and no other, and answers of plain text."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

import pytest

from services.chassis.blocking import Blocking
from services.core import errors
from services.registry_gateway.adapters.credentials.device_flow import DeviceFlow
from services.registry_gateway.adapters.transport.masking import Secrets
from services.registry_gateway.adapters.transport.origin import Locator, Origin
from services.registry_gateway.login_ports import Credential, DeviceCode

HOST = "registry.example"
ISSUER = "https://issuer.example"
REGISTRY = f"https://{HOST}/v2/"
DISCOVERY = f"{ISSUER}/.well-known/openid-configuration"
DEVICE, TOKEN = f"{ISSUER}/device", f"{ISSUER}/token"
CHALLENGE = f'Bearer realm="{TOKEN}",service="reg"'
METADATA = {"issuer": ISSUER, "device_authorization_endpoint": DEVICE, "token_endpoint": TOKEN}
STARTED = {
    "device_code": "code-1",
    "user_code": "ABCD-EFGH",
    "verification_uri": f"{ISSUER}/activate",
    "interval": 7,
    "expires_in": 300,
}


class Answer:
    """What a request is answered with."""

    def __init__(self, status: int, body: object = None, *challenges: str) -> None:
        self.status_code = status
        self.body = body
        self.challenges = challenges

    def header_values(self, name: str) -> tuple[str, ...]:
        return self.challenges

    def document(self) -> Any:
        if not isinstance(self.body, dict):
            raise errors.RegistryProtocol("not an object")
        return self.body

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class World:
    """A registry and its issuer by address, in the place of `HttpClient`."""

    def __init__(self) -> None:
        self.secrets = Secrets()
        self.answers = {
            REGISTRY: Answer(401, None, CHALLENGE),
            DISCOVERY: Answer(200, METADATA),
            DEVICE: Answer(200, STARTED),
            TOKEN: Answer(400, {"error": "authorization_pending"}),
        }
        self.forms: list[tuple[str, Mapping[str, list[str]]]] = []
        self.senders: set[Origin | None] = set()
        self.flow = DeviceFlow(
            self,  # type: ignore[arg-type]  # the one method that is used
            Locator(),
            Blocking(1),
            clock=lambda: 1000.0,
        )

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
        if body is not None:
            self.forms.append((url, parse_qs(body.decode())))
        if url != REGISTRY:
            self.senders.add(sender)
        return self.answers[url]

    async def poll(self, status: int, body: object) -> Credential | None:
        self.answers[TOKEN] = Answer(status, body)
        return await self.flow.poll(self.code)

    @property
    def code(self) -> DeviceCode:
        return DeviceCode(
            registry=HOST,
            device_code="code-1",
            user_code="ABCD",
            verification_uri=ISSUER,
            token_endpoint=TOKEN,
            interval=5.0,
            expires_in=60.0,
            expires=1060.0,
        )


@pytest.fixture
def world() -> World:
    return World()


async def test_a_login_is_started_at_the_issuer_that_the_realm_names(world: World) -> None:
    code = await world.flow.start(HOST)

    assert (code.user_code, code.verification_uri) == ("ABCD-EFGH", f"{ISSUER}/activate")
    assert (code.interval, code.expires_in, code.expires) == (7.0, 300.0, 1300.0)
    (asked,) = world.forms
    assert asked[0] == DEVICE
    assert asked[1]["service"] == ["reg"]
    assert world.senders == {Origin.of_url(f"https://{HOST}")}  # judged as addresses it named


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, {}),
        Answer(401, None),
        Answer(401, None, 'Basic realm="x"'),
        Answer(401, None, "Bearer service=reg"),
    ],
    ids=["open", "no challenge", "basic", "no realm"],
)
async def test_a_registry_without_a_token_realm_advertises_none(
    world: World, answer: Answer
) -> None:
    world.answers[REGISTRY] = answer

    with pytest.raises(errors.Unimplemented, match="advertises no device login"):
        await world.flow.start(HOST)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        METADATA | {"issuer": "https://other.example"},
        METADATA | {"token_endpoint": "https://other.example/token"},
        METADATA | {"device_authorization_endpoint": f"http://{HOST}/device"},
        METADATA | {"token_endpoint": 7},
        METADATA | {"token_endpoint": "no address"},
    ],
)
async def test_endpoints_of_another_origin_are_not_advertised(
    world: World, metadata: dict[str, object] | None
) -> None:
    world.answers[DISCOVERY] = Answer(200, metadata)

    with pytest.raises(errors.Unimplemented):
        await world.flow.start(HOST)
    assert world.forms == []


async def test_a_realm_that_is_less_protected_than_the_registry_is_refused(world: World) -> None:
    world.answers[REGISTRY] = Answer(401, None, 'Bearer realm="http://issuer.example/token"')

    with pytest.raises(errors.RegistryProtocol, match="unprotected"):
        await world.flow.start(HOST)


@pytest.mark.parametrize(
    "wrong",
    [
        {"user_code": ""},
        {"user_code": "A\x1b[2J"},
        {"user_code": "A" * 3000},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": f"{ISSUER}/ä"},
        {"device_code": None},
    ],
)
async def test_what_a_user_is_shown_is_one_harmless_line(
    world: World, wrong: dict[str, object]
) -> None:
    world.answers[DEVICE] = Answer(200, STARTED | wrong)

    with pytest.raises(errors.RegistryProtocol):
        await world.flow.start(HOST)


@pytest.mark.parametrize(
    ("sent", "interval", "life"),
    [
        ({"interval": None, "expires_in": None}, 5.0, 3600.0),
        ({"interval": True, "expires_in": "x"}, 5.0, 3600.0),
        ({"interval": -1, "expires_in": 0}, 5.0, 3600.0),
        ({"interval": 1e9, "expires_in": 1e9}, 3600.0, 3600.0),
        ({"interval": float("nan"), "expires_in": float("inf")}, 5.0, 3600.0),
    ],
)
async def test_times_of_an_issuer_are_bounded(
    world: World, sent: dict[str, object], interval: float, life: float
) -> None:
    world.answers[DEVICE] = Answer(200, STARTED | sent)

    code = await world.flow.start(HOST)

    assert (code.interval, code.expires_in) == (interval, life)


async def test_a_poll_brings_the_token_once_the_user_agreed(world: World) -> None:
    assert await world.poll(400, {"error": "authorization_pending"}) is None
    credential = await world.poll(200, {"refresh_token": "r-1"})

    assert credential == Credential(username="", secret="r-1")
    assert world.forms[0][1]["device_code"] == ["code-1"]


async def test_an_issuer_that_wants_to_be_asked_less_often_is(world: World) -> None:
    code = world.code
    world.answers[TOKEN] = Answer(400, {"error": "slow_down"})

    assert await world.flow.poll(code) is None
    assert code.interval == 10.0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("access_denied", "was refused"),
        ("expired_token", "took too long"),
        ("\x1b[31m", "failed at the issuer"),
        (7, "failed at the issuer"),
    ],
)
async def test_a_login_that_failed_says_why_and_how_to_try_again(
    world: World, error: object, said: str
) -> None:
    with pytest.raises(errors.RegistryUnauthenticated) as caught:
        await world.poll(400, {"error": error})

    assert caught.value.message == f"the login at {HOST} {said}"
    assert caught.value.hint == f"try again: lns login {HOST}"


async def test_a_token_is_no_part_of_an_error(world: World) -> None:
    with pytest.raises(errors.RegistryProtocol) as caught:
        await world.poll(200, {"refresh_token": "secret\n"})

    assert "secret" not in caught.value.message
