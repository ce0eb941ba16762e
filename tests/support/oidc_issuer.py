"""A fake OIDC issuer with the device flow (RFC 8628), and a registry that advertises it.

How a registry advertises a device login, and what a client makes of it (docs/registry-login.md says
it for operators):

1. `GET /v2/` → 401 with `WWW-Authenticate: Bearer realm="<origin>/…",service="…"`, as any registry
   with token authentication answers.
2. The *origin* of the realm is the issuer: `GET <origin>/.well-known/openid-configuration` → 200
   and JSON with `issuer` (equal to the origin), `device_authorization_endpoint` and
   `token_endpoint`, both of the same origin. Else: no device login is advertised.
3. `POST device_authorization_endpoint` (form: `client_id=lns`, `scope=openid offline_access`,
   `service` as in the challenge) → `device_code`, `user_code`, `verification_uri`,
   `verification_uri_complete`, `expires_in`, `interval`.
4. `POST token_endpoint` (form: `grant_type=urn:ietf:params:oauth:grant-type:device_code`,
   `device_code`, `client_id=lns`) every `interval` seconds, 5 more after each `slow_down`, until it
   answers 200 or an error other than `authorization_pending` and `slow_down`.
5. The `refresh_token` of the answer is an identity token for the realm: it is stored as one, and
   exchanged for bearer tokens as Docker's identity tokens are (`POST realm`,
   `grant_type=refresh_token`). Nothing about transfers changes.

The issuer is the realm's own origin so that a hostile registry cannot have a person log in at
another registry's issuer and collect the token at its own realm.
"""

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.support.http_messages import Request, Response, answer
from tests.support.http_peer import Exchange, HttpPeer
from tests.support.registry import PASSWORD, USERNAME, RunningRegistry, run_registry_trusting
from tests.support.token_server import TokenServer, run_token_server

CLIENT_ID = "lns"
DEVICE_CODE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
DISCOVERY_PATH = "/.well-known/openid-configuration"
_DEVICE_PATH = "/oauth/device"
_TOKEN_PATH = "/oauth/token"
_REALM_PATH = "/token"


class Outcome(StrEnum):
    """What polling for a token answers; all but the last are error codes of the RFC."""

    PENDING = "authorization_pending"
    SLOW_DOWN = "slow_down"
    DENIED = "access_denied"
    EXPIRED = "expired_token"
    SUCCESS = "success"


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """One request for the token of a login."""

    at: float
    """Seconds of the monotonic clock."""
    outcome: Outcome


@dataclass(slots=True, kw_only=True)
class DeviceLogin:
    """A login that was started."""

    device_code: str
    user_code: str
    form: dict[str, str]
    """What the client sent."""
    outcome: Outcome = Outcome.PENDING
    polls: list[Poll] = field(default_factory=list)


class OidcIssuer:
    """Serves the flow until it is closed; a context manager.

    A test may change the attributes at any time.

    Args:
        tokens: the token server of the registry; its tokens are served at `realm`, and it learns
            the refresh tokens that logins end with.
    """

    def __init__(self, tokens: TokenServer) -> None:
        self._tokens = tokens
        self._changed = threading.Condition()
        self._slow_downs = 0
        self._peer = HttpPeer(self._serve, upstream=urlsplit(tokens.realm).netloc)
        self.logins: list[DeviceLogin] = []
        self.requests: list[Request] = []
        self.advertised = True
        """Whether there is a discovery document."""
        self.interval: int | None = 1
        """Seconds between polls that the client is asked for; None leaves them out (5 then)."""
        self.expires_in = 600
        """Seconds."""
        self.metadata: dict[str, str | None] = {}
        """Members of the discovery document that are others, or missing (None)."""
        self.grant: dict[str, object] = {}
        """Members of a successful answer that are others, or missing (None)."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._peer.close()

    @property
    def url(self) -> str:
        """Origin of the issuer, without a trailing slash."""
        return self._peer.url

    @property
    def realm(self) -> str:
        """Where tokens for the registry are given out."""
        return self.url + _REALM_PATH

    @property
    def verification_uri(self) -> str:
        """Where a person would enter the user code."""
        return f"{self.url}/device"

    def wait_for_login(self, *, within: float = 10.0) -> DeviceLogin:
        """Returns the latest login, as soon as one has begun; fails the test when none does."""
        with self._changed:
            came = self._changed.wait_for(lambda: self.logins, timeout=within)
        assert came, f"no device login was started within {within} s"
        return self.logins[-1]

    def approve(self) -> None:
        """Does what a person does who enters the code and agrees."""
        self.wait_for_login().outcome = Outcome.SUCCESS

    def deny(self) -> None:
        """Does what a person does who refuses."""
        self.wait_for_login().outcome = Outcome.DENIED

    def expire(self) -> None:
        """Lets the code become too old."""
        self.wait_for_login().outcome = Outcome.EXPIRED

    def slow_down(self, times: int = 1) -> None:
        """Answers the next polls with `slow_down`."""
        self._slow_downs += times

    def _serve(self, exchange: Exchange) -> None:
        request = exchange.request
        self.requests.append(request)
        if (request.method, request.path) == ("GET", DISCOVERY_PATH):
            exchange.send(self._discover())
        elif (request.method, request.path) == ("POST", _DEVICE_PATH):
            exchange.send(self._start(_form(exchange)))
        elif (request.method, request.path) == ("POST", _TOKEN_PATH):
            exchange.send(self._poll(_form(exchange)))
        elif request.path == _REALM_PATH:
            exchange.send(exchange.forward())
        else:
            exchange.send(answer(404))

    def _discover(self) -> Response:
        if not self.advertised:
            return answer(404)
        document: dict[str, object] = {
            "issuer": self.url,
            "device_authorization_endpoint": self.url + _DEVICE_PATH,
            "token_endpoint": self.url + _TOKEN_PATH,
            "grant_types_supported": [DEVICE_CODE_GRANT, "refresh_token"],
            "scopes_supported": ["openid", "offline_access"],
        }
        return _json({**document, **self.metadata})

    def _start(self, form: dict[str, str]) -> Response:
        if form.get("client_id") != CLIENT_ID:
            return _json({"error": "invalid_client"}, 401)
        if not {"openid", "offline_access"} <= set(form.get("scope", "").split()):
            return _json({"error": "invalid_scope"}, 400)
        login = DeviceLogin(
            device_code=secrets.token_urlsafe(24),
            user_code=secrets.token_hex(4).upper(),
            form=form,
        )
        with self._changed:
            self.logins.append(login)
            self._changed.notify_all()
        return _json(
            {
                "device_code": login.device_code,
                "user_code": login.user_code,
                "verification_uri": self.verification_uri,
                "verification_uri_complete": f"{self.verification_uri}?code={login.user_code}",
                "expires_in": self.expires_in,
                "interval": self.interval,
            }
        )

    def _poll(self, form: dict[str, str]) -> Response:
        if form.get("grant_type") != DEVICE_CODE_GRANT:
            return _json({"error": "unsupported_grant_type"}, 400)
        if form.get("client_id") != CLIENT_ID:
            return _json({"error": "invalid_client"}, 401)
        code = form.get("device_code")
        login = next((one for one in self.logins if one.device_code == code), None)
        if login is None:
            return _json({"error": "invalid_grant"}, 400)
        outcome = login.outcome
        if outcome is Outcome.PENDING and self._slow_downs:
            self._slow_downs -= 1
            outcome = Outcome.SLOW_DOWN
        login.polls.append(Poll(at=time.monotonic(), outcome=outcome))
        if outcome is not Outcome.SUCCESS:
            return _json({"error": outcome}, 400)
        return _json(self._issue())

    def _issue(self) -> dict[str, object]:
        refresh_token = secrets.token_urlsafe(24)
        self._tokens.refresh_tokens.add(refresh_token)
        granted: dict[str, object] = {
            "access_token": secrets.token_urlsafe(24),
            "id_token": secrets.token_urlsafe(24),
            "refresh_token": refresh_token,
            "token_type": "Bearer",
            "expires_in": 300,
        }
        return {**granted, **self.grant}


@contextlib.contextmanager
def run_oidc_registry() -> Iterator[tuple[RunningRegistry, OidcIssuer]]:
    """A `registry:2` that advertises a device login, and its issuer.

    Raises:
        RegistryUnavailable: Docker or the image is not there.
    """
    with (
        run_token_server(username=USERNAME, password=PASSWORD) as server,
        OidcIssuer(server) as issuer,
        run_registry_trusting(server, realm=issuer.realm) as registry,
    ):
        yield registry, issuer


def _form(exchange: Exchange) -> dict[str, str]:
    fields = parse_qs(exchange.read_body().decode())
    return {name: values[0] for name, values in fields.items()}


def _json(document: dict[str, Any], status: int = 200) -> Response:
    """Returns an answer with the members that are not None."""
    present = {name: value for name, value in document.items() if value is not None}
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return answer(status, json.dumps(present).encode(), headers)
