"""What a registry is shown: Basic credentials or bearer tokens, each to its own origin only.

The first request to an origin goes without; its challenge is remembered, so that later ones carry
what is wanted at once. Bearer tokens are kept by (origin, service, access) until they expire; an
origin that refuses one gets a fresh one once. Specification: the distribution project's token
authentication, with its OAuth2 variant for identity tokens.
"""

import base64
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final, Self
from urllib.parse import urlencode, urlsplit

from services.core.errors import RegistryProtocol, RegistryUnauthenticated, RegistryUnavailable
from services.registry_gateway.adapters.credentials.challenge import Challenge, parse_challenges
from services.registry_gateway.adapters.transport.http_client import HttpClient
from services.registry_gateway.adapters.transport.http_reply import Reply
from services.registry_gateway.adapters.transport.origin import Origin, check_target
from services.registry_gateway.login_ports import Credential, Credentials
from services.registry_gateway.progress import Stop

CLIENT_ID: Final = "lns"
MAX_TOKEN_CHARACTERS: Final = 64 * 1024
_DEFAULT_LIFE_SECONDS: Final = 60.0
_LONGEST_LIFE_SECONDS: Final = 3600.0
_MARGIN_SECONDS: Final = 10.0
_TOKENS_KEPT: Final = 1024
_FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, slots=True)
class Access:
    """What a request is about.

    Attributes:
        repository: the path whose credential is shown; empty for the registry as a whole.
        scopes: what a token must permit, as the token specification writes it
            (`repository:path:pull,push`); empty for what the registry asks for by itself.
    """

    repository: str = ""
    scopes: frozenset[str] = frozenset()

    @classmethod
    def to(cls, repository: str, actions: str) -> Self:
        """Returns the access to one repository, for actions such as `pull,push`."""
        return cls(repository, frozenset({f"repository:{repository}:{actions}"}))

    def and_pull(self, repository: str) -> "Access":
        """Returns this access and that to read another repository of the same registry."""
        return replace(self, scopes=self.scopes | {f"repository:{repository}:pull"})


@dataclass(frozen=True, slots=True)
class _TokenKey:
    origin: Origin
    service: str
    access: Access


@dataclass(frozen=True, slots=True)
class _Token:
    text: str = field(repr=False)
    expires: float


@dataclass(slots=True)
class _OriginState:
    """What is known about one origin; `guard` lets one thread at a time fetch a token."""

    challenge: Challenge | None = None
    guard: threading.Lock = field(default_factory=threading.Lock)


class Authenticator:
    """Makes the `Authorization` header of each request; used by many threads."""

    def __init__(
        self,
        http: HttpClient,
        credentials: Credentials,
        *,
        host_of: Callable[[Origin], str] = lambda origin: origin.authority,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts with nothing known.

        Args:
            http: what tokens are fetched with.
            credentials: what registries are shown.
            host_of: the name under which credentials of an origin are kept.
            clock: seconds that only go forward.
        """
        self._http = http
        self._credentials = credentials
        self.host_of = host_of
        self._clock = clock
        self._guard = threading.Lock()
        self._origins: dict[Origin, _OriginState] = {}
        self._tokens: dict[_TokenKey, _Token] = {}

    def with_credentials(self, credentials: Credentials) -> "Authenticator":
        """Returns one that shows other credentials and knows nothing yet."""
        return Authenticator(self._http, credentials, host_of=self.host_of, clock=self._clock)

    def is_challenged(self, origin: Origin) -> bool:
        """Whether an origin ever asked for a login."""
        return self._state(origin).challenge is not None

    def header(
        self,
        origin: Origin,
        access: Access,
        offered: Challenge | None = None,
        *,
        stop: Stop | None = None,
    ) -> str:
        """Returns the `Authorization` header for a request, or the empty string.

        Args:
            origin: where the request goes.
            access: what it is about.
            offered: the challenge that was just met with; None is the one that is kept.
            stop: ends the wait for a token server.

        Raises:
            RegistryUnauthenticated: the token server refused, or wants a login.
            RegistryUnavailable: the token server does not answer.
        """
        challenge = offered or self._state(origin).challenge
        if challenge is None:
            return ""
        if challenge.scheme == "basic":
            credential = self._credentials.find(self.host_of(origin), access.repository)
            return _basic(credential) if credential and credential.username else ""
        return f"Bearer {self._token(origin, challenge, access, stop=stop).text}"

    def accepted(self, origin: Origin, challenge: Challenge) -> None:
        """Keeps a challenge: meeting it has led to success."""
        self._state(origin).challenge = challenge

    def drop(self, origin: Origin) -> None:
        """Forgets the challenge of an origin, which is asked anew."""
        self._state(origin).challenge = None

    def refused(self, origin: Origin, access: Access, reply: Reply, sent: str) -> Challenge:
        """Returns the challenge of a 401 that can be met; it is not kept before `accepted`.

        Args:
            origin: who refused.
            access: what the request is about.
            reply: the refusal.
            sent: the header that was sent, or the empty string.

        Raises:
            RegistryUnauthenticated: nothing else can be shown than what was.
        """
        challenge = _choose(parse_challenges(reply.header_values("WWW-Authenticate")))
        host = self.host_of(origin)
        if challenge is None:
            raise RegistryUnauthenticated(
                f"{host} wants a login but names no way that lns knows", metadata={"registry": host}
            )
        if challenge.scheme == "basic":
            credential = self._credentials.find(host, access.repository)
            if credential is None or not credential.username:
                raise self._login_wanted(host, access)
            if sent == _basic(credential):
                raise _refused_credential(host, credential)
            return challenge
        key = self._key(origin, challenge, access)
        with self._guard:
            held = self._tokens.get(key)
            if held is not None and sent == f"Bearer {held.text}":
                del self._tokens[key]
        return challenge

    def forget(self, host: str) -> None:
        """Drops what was learnt and fetched for a registry host: after a login or logout."""
        self._credentials.forget(host)
        with self._guard:
            gone = [origin for origin in self._origins if self.host_of(origin) == host]
            for origin in gone:
                del self._origins[origin]
            self._tokens = {k: v for k, v in self._tokens.items() if k.origin not in gone}

    def _login_wanted(self, host: str, access: Access) -> RegistryUnauthenticated:
        problems = self._credentials.problems(host, access.repository)
        if problems:
            return RegistryUnauthenticated(
                f"{host} wants a login, and what is stored cannot be used: {'; '.join(problems)}",
                hint=f"mend that, or log in with lns: lns login {host}",
                metadata={"registry": host},
            )
        return RegistryUnauthenticated(
            f"{host} wants a login", hint=f"lns login {host}", metadata={"registry": host}
        )

    def _state(self, origin: Origin) -> _OriginState:
        with self._guard:
            return self._origins.setdefault(origin, _OriginState())

    def _key(self, origin: Origin, challenge: Challenge, access: Access) -> _TokenKey:
        # What the registry asked for by itself counts where we did not know what to ask for.
        wanted = access.scopes or frozenset(challenge.get("scope").split())
        return _TokenKey(origin, challenge.get("service"), replace(access, scopes=wanted))

    def _token(
        self, origin: Origin, challenge: Challenge, access: Access, *, stop: Stop | None
    ) -> _Token:
        key = self._key(origin, challenge, access)
        with self._state(origin).guard:
            with self._guard:
                held = self._tokens.get(key)
            if held is not None and held.expires > self._clock():
                return held
            token = self._fetch(key, challenge, stop)
            with self._guard:
                while len(self._tokens) >= _TOKENS_KEPT:
                    self._tokens.pop(next(iter(self._tokens)))
                self._tokens[key] = token
            return token

    def _fetch(self, key: _TokenKey, challenge: Challenge, stop: Stop | None) -> _Token:
        realm = check_target(key.origin, challenge.get("realm")).partition("#")[0]
        host = self.host_of(key.origin)
        credential = self._credentials.find(host, key.access.repository)
        scopes = sorted(key.access.scopes)
        parameters = [("service", key.service)] if key.service else []
        asked_at = self._clock()
        if credential is not None and credential.is_identity_token:
            parameters += [
                ("grant_type", "refresh_token"),
                ("refresh_token", credential.secret),
                ("client_id", CLIENT_ID),
                ("scope", " ".join(scopes)),
            ]
            body = urlencode(parameters).encode("ascii")
            reply = self._http.send(
                "POST", realm, headers=_FORM, body=body, stop=stop, sender=key.origin
            )
        else:
            parameters += [("scope", scope) for scope in scopes]
            if credential is not None:
                parameters += [("account", credential.username), ("client_id", CLIENT_ID)]
            headers = {"Authorization": _basic(credential)} if credential else {}
            url = realm + ("&" if urlsplit(realm).query else "?") + urlencode(parameters)
            reply = self._http.send("GET", url, headers=headers, stop=stop, sender=key.origin)
        with reply:
            return self._read_token(reply, host, key.access, credential, asked_at)

    def _read_token(
        self,
        reply: Reply,
        host: str,
        access: Access,
        credential: Credential | None,
        asked_at: float,
    ) -> _Token:
        if reply.status_code in (400, 401, 403):
            if credential is None:
                raise self._login_wanted(host, access)
            raise _refused_credential(host, credential)
        if reply.status_code != 200:  # noqa: PLR2004 - HTTP's OK
            raise RegistryUnavailable(
                f"the token server of {host} answered {reply.status_code}",
                metadata={"registry": host},
                retry_after=1.0,
            )
        answer = reply.document()
        text = answer.get("token") or answer.get("access_token")
        if not isinstance(text, str) or not 0 < len(text) <= MAX_TOKEN_CHARACTERS:
            raise RegistryProtocol(f"the token server of {host} sent no token")
        if not text.isascii() or not text.isprintable():
            raise RegistryProtocol(f"the token server of {host} sent a token that is not text")
        life = answer.get("expires_in")
        if isinstance(life, bool) or not isinstance(life, int | float) or life <= 0:
            life = _DEFAULT_LIFE_SECONDS
        life = min(float(life), _LONGEST_LIFE_SECONDS)
        return _Token(text, asked_at + max(life - _MARGIN_SECONDS, life / 2))


def _choose(challenges: Iterable[Challenge]) -> Challenge | None:
    """Returns the best challenge that we can meet: bearer before basic."""
    known = [one for one in challenges if one.scheme in ("bearer", "basic")]
    return min(known, key=lambda one: one.scheme != "bearer", default=None)


def _basic(credential: Credential) -> str:
    text = f"{credential.username}:{credential.secret}"
    return "Basic " + base64.b64encode(text.encode("utf-8")).decode("ascii")


def _refused_credential(host: str, credential: Credential) -> RegistryUnauthenticated:
    place = f" (kept in {credential.stored_in})" if credential.stored_in else ""
    return RegistryUnauthenticated(
        f"{host} refused the login{place}", hint=f"lns login {host}", metadata={"registry": host}
    )
