"""The fake issuer keeps to RFC 8628 and to the convention in docs/registry-login.md."""

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
import urllib3

from tests.support.oidc_issuer import DEVICE_CODE_GRANT, OidcIssuer, Outcome
from tests.support.token_server import TokenServer, run_token_server


@pytest.fixture
def tokens() -> Iterator[TokenServer]:
    with run_token_server(username="lns", password="secret") as server:
        yield server


@pytest.fixture
def issuer(tokens: TokenServer) -> Iterator[OidcIssuer]:
    with OidcIssuer(tokens) as issuer:
        yield issuer


def post(url: str, **form: str) -> urllib3.BaseHTTPResponse:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode(form).encode()
    return urllib3.request("POST", url, body=body, headers=headers, retries=False, timeout=5)


def discover(issuer: OidcIssuer) -> urllib3.BaseHTTPResponse:
    return urllib3.request("GET", f"{issuer.url}/.well-known/openid-configuration", timeout=5)


def start(issuer: OidcIssuer) -> dict[str, str]:
    endpoint = discover(issuer).json()["device_authorization_endpoint"]
    answered = post(endpoint, client_id="lns", scope="openid offline_access", service="registry")
    assert answered.status == 200
    return dict(answered.json())


def poll(issuer: OidcIssuer, device_code: str) -> urllib3.BaseHTTPResponse:
    endpoint = discover(issuer).json()["token_endpoint"]
    return post(endpoint, client_id="lns", grant_type=DEVICE_CODE_GRANT, device_code=device_code)


def test_discovery_names_the_issuer_and_endpoints_of_its_origin(issuer: OidcIssuer) -> None:
    document = discover(issuer).json()

    assert document["issuer"] == issuer.url
    for name in ("device_authorization_endpoint", "token_endpoint"):
        assert document[name].startswith(f"{issuer.url}/")


def test_discovery_can_be_absent_or_lie(issuer: OidcIssuer) -> None:
    issuer.metadata = {"issuer": "https://elsewhere.example", "token_endpoint": None}
    document = discover(issuer).json()
    issuer.advertised = False

    assert document["issuer"] == "https://elsewhere.example"
    assert "token_endpoint" not in document
    assert discover(issuer).status == 404


def test_a_login_is_pending_until_a_person_approves_it(issuer: OidcIssuer) -> None:
    started = start(issuer)
    pending = poll(issuer, started["device_code"])
    issuer.approve()
    granted = poll(issuer, started["device_code"])

    assert (pending.status, pending.json()) == (400, {"error": "authorization_pending"})
    assert granted.status == 200
    assert granted.json()["token_type"] == "Bearer"
    (login,) = issuer.logins
    assert login.user_code == started["user_code"]
    assert login.form["service"] == "registry"
    assert [one.outcome for one in login.polls] == [Outcome.PENDING, Outcome.SUCCESS]


def test_the_refresh_token_is_an_identity_token_at_the_realm(issuer: OidcIssuer) -> None:
    started = start(issuer)
    issuer.approve()
    refresh_token = poll(issuer, started["device_code"]).json()["refresh_token"]

    def exchange(token: str) -> urllib3.BaseHTTPResponse:
        return post(
            issuer.realm,
            grant_type="refresh_token",
            refresh_token=token,
            service="registry",
            client_id="lns",
            scope="repository:a:pull",
        )

    assert exchange(refresh_token).json()["access_token"]
    assert exchange("invented").status == 401


@pytest.mark.parametrize(
    ("decide", "error"),
    [(OidcIssuer.deny, "access_denied"), (OidcIssuer.expire, "expired_token")],
)
def test_a_login_can_be_refused_or_expire(issuer: OidcIssuer, decide: object, error: str) -> None:
    started = start(issuer)
    assert callable(decide)
    decide(issuer)

    answered = poll(issuer, started["device_code"])

    assert (answered.status, answered.json()) == (400, {"error": error})


def test_a_client_is_asked_to_slow_down_so_many_times(issuer: OidcIssuer) -> None:
    started = start(issuer)
    issuer.slow_down(times=2)

    errors = [poll(issuer, started["device_code"]).json()["error"] for _ in range(3)]

    assert errors == ["slow_down", "slow_down", "authorization_pending"]


def test_interval_may_be_left_out_and_the_grant_may_lack_its_refresh_token(
    issuer: OidcIssuer,
) -> None:
    issuer.interval = None
    issuer.grant = {"refresh_token": None}
    started = start(issuer)
    issuer.approve()

    assert "interval" not in started
    assert "refresh_token" not in poll(issuer, started["device_code"]).json()


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"scope": "openid offline_access"}, "invalid_client"),
        ({"client_id": "lns", "scope": "openid"}, "invalid_scope"),
    ],
)
def test_a_login_needs_a_client_and_offline_access(
    issuer: OidcIssuer, form: dict[str, str], error: str
) -> None:
    endpoint = discover(issuer).json()["device_authorization_endpoint"]

    assert post(endpoint, **form).json() == {"error": error}
    assert issuer.logins == []


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": "password", "client_id": "lns"}, "unsupported_grant_type"),
        ({"grant_type": DEVICE_CODE_GRANT, "device_code": "x"}, "invalid_client"),
        (
            {"grant_type": DEVICE_CODE_GRANT, "client_id": "lns", "device_code": "x"},
            "invalid_grant",
        ),
    ],
)
def test_polling_with_something_else_is_refused(
    issuer: OidcIssuer, form: dict[str, str], error: str
) -> None:
    assert post(discover(issuer).json()["token_endpoint"], **form).json() == {"error": error}
