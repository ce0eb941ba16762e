"""Requests to registries with what the way there needs: credentials, redirects, retries.

A request is tried again after a connection error and after 408, 429 and 5xx, with exponential
back-off and full jitter, or after what `Retry-After` says; within the caller's deadline, a number
of tries and a span of time. A refusal (401) is met with what its challenge asks for. Redirects are
followed for reading only; credentials never leave the origin that they belong to.
"""

import email.utils
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from services.chassis import context
from services.core.errors import (
    LnsError,
    RegistryProtocol,
    RegistryUnauthenticated,
    RegistryUnavailable,
    TooManyRequests,
)
from services.registry_gateway.adapters.credentials.authenticator import Access, Authenticator
from services.registry_gateway.adapters.credentials.challenge import Challenge
from services.registry_gateway.adapters.transport.http_client import Body, HttpClient
from services.registry_gateway.adapters.transport.http_reply import HostUnknown, Reply
from services.registry_gateway.adapters.transport.origin import Origin, check_target, resolve_url
from services.registry_gateway.login_ports import Credentials
from services.registry_gateway.metrics import RETRIES
from services.registry_gateway.progress import Stop

MAX_REDIRECTS: Final = 5
_MAX_REFUSALS: Final = 3
_UNAUTHORIZED: Final = 401
_ACCEPTING: Final = frozenset({*range(200, 400), 404})
"""Answers that show that what was sent was good: others may come from before it was looked at."""
_TOO_MANY: Final = 429
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_READING: Final = frozenset({"GET", "HEAD"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When to give up, in tries and seconds."""

    attempts: int = 5
    base: float = 0.25
    longest: float = 8.0
    longest_asked: float = 60.0
    """The most that a registry's `Retry-After` is waited for."""
    total: float = 120.0

    def pause(self, attempt: int, asked: float | None, chance: float) -> float:
        """Returns how long to wait after a failed attempt; the first is 0.

        Args:
            attempt: how many failed before.
            asked: what the registry's `Retry-After` said.
            chance: a random number in [0, 1).
        """
        jittered = min(self.longest, self.base * 2.0**attempt) * chance
        return jittered if asked is None else asked + min(jittered, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to a registry.

    Attributes:
        method: GET, HEAD, POST, PATCH, PUT or DELETE.
        url: absolute.
        access: what it is about: decides what is shown to the registry.
        headers: without credentials.
        body: opens the body anew for each try, or None.
        retried: whether it may be tried again after a failure whose effect is unknown.
        home: the registry that is spoken to, where `url` is one that it named: only that origin is
            shown credentials, and the address must be one that it may name. None: the origin of
            `url`.
        size: the most bytes that its bodies have, where they are large: for the time it may take.
    """

    method: str
    url: str
    access: Access
    headers: Mapping[str, str]
    body: Callable[[], bytes | Body] | None = None
    retried: bool = True
    home: Origin | None = None
    size: int = 0


class Exchange:
    """Sends requests; used by many threads."""

    def __init__(
        self,
        http: HttpClient,
        authenticator: Authenticator,
        *,
        policy: RetryPolicy,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.http = http
        self.authenticator = authenticator
        self.policy = policy
        self._chance = chance
        self._clock = clock

    def with_credentials(self, credentials: Credentials) -> "Exchange":
        """Returns one that shows registries other credentials and knows no tokens yet."""
        return Exchange(
            self.http,
            self.authenticator.with_credentials(credentials),
            policy=self.policy,
            chance=self._chance,
            clock=self._clock,
        )

    def send(self, request: Request, *, stop: Stop | None = None) -> Reply:
        """Sends a request and returns the answer, which the caller closes.

        The answer has any status but 408, 429, 5xx, and 401 where something else can be shown.

        Raises:
            RegistryUnavailable: no answer, or only failures, after all tries.
            TooManyRequests: the registry asks to wait longer than we do.
            RegistryUnauthenticated: it wants a login, or refused ours.
            RegistryProtocol: it redirects where it must not.
            DeadlineExceeded: the caller's time is over, or `stop` was set.
        """
        stop = stop or Stop()
        began = self._clock()
        attempt = 0
        while True:
            failure: LnsError
            try:
                reply = self._authorized(request, stop)
            except RegistryUnavailable as error:
                failure = error
                # A name that has no address has none the next time, unless the resolver is down.
                repeatable = request.retried and not isinstance(error, HostUnknown)
                if isinstance(error, HostUnknown) and error.resolver_failed:
                    repeatable = attempt == 0
            else:
                if reply.status_code not in _PASSING:
                    return reply
                failure = _failure(reply)
                reply.close()
                repeatable = True
            if not repeatable or not self.wait(attempt, failure, began, stop):
                raise failure
            attempt += 1

    def wait(self, attempt: int, failure: LnsError, began: float, stop: Stop) -> bool:
        """Waits before the next try; says whether there is one.

        Args:
            attempt: how many tries failed before this one.
            failure: why this one did.
            began: when the first try began, by this object's clock.
            stop: ends the wait.
        """
        # A connection error carries advice for callers, a status what the registry asked for.
        asked = failure.retry_after if "status" in failure.metadata else None
        pause = self.policy.pause(attempt, asked, self._chance())
        if attempt + 1 >= self.policy.attempts or (asked or 0) > self.policy.longest_asked:
            return False
        if self._clock() - began + pause > self.policy.total or pause >= context.remaining():
            return False
        RETRIES.inc()
        stop.wait(pause)
        stop.check()
        return True

    def now(self) -> float:
        """Returns the time of this object's clock, for `wait`."""
        return self._clock()

    def _authorized(self, request: Request, stop: Stop) -> Reply:
        """Sends with what the origin wants to see: at most one challenge and one stale token."""
        origin = Origin.of_url(request.url)
        if request.home not in (None, origin):
            return self._redirected(request, origin, "", stop)
        offered: Challenge | None = None
        for _ in range(_MAX_REFUSALS):
            header = self._header(origin, request, offered, stop)
            reply = self._redirected(request, origin, header, stop)
            if reply.status_code != _UNAUTHORIZED or Origin.of_url(reply.url) != origin:
                if offered is not None and reply.status_code in _ACCEPTING:
                    self.authenticator.accepted(origin, offered)
                return reply
            with reply:
                offered = self.authenticator.refused(origin, request.access, reply, header)
        raise RegistryUnauthenticated(
            f"{origin.authority} refuses the tokens of its own token server",
            hint="does this account have access to the repository?",
            metadata={"registry": origin.authority},
        )

    def _header(
        self, origin: Origin, request: Request, offered: Challenge | None, stop: Stop
    ) -> str:
        """Returns what is shown; a kept challenge that leads nowhere any more is dropped."""
        try:
            return self.authenticator.header(origin, request.access, offered, stop=stop)
        except (RegistryUnauthenticated, RegistryProtocol, RegistryUnavailable):
            stop.check()
            if offered is not None:
                raise
            self.authenticator.drop(origin)
            return ""

    def _redirected(self, request: Request, origin: Origin, header: str, stop: Stop) -> Reply:
        url, sender = request.url, request.home
        for _ in range(MAX_REDIRECTS + 1):
            here = Origin.of_url(url)
            headers = dict(request.headers)
            if header and here == origin:
                headers["Authorization"] = header
            body = request.body() if request.body else None
            try:
                reply = self.http.send(
                    request.method,
                    url,
                    headers=headers,
                    body=body,
                    stop=stop,
                    sender=sender,
                    size=request.size,
                )
            finally:
                if body is not None and not isinstance(body, bytes):
                    body.close()
            reply.asked = self.authenticator.host_of(request.home or origin)
            if here != (request.home or origin):
                reply.elsewhere = here.authority
            if reply.status_code not in _REDIRECTS or request.method not in _READING:
                return reply
            with reply:
                url = check_target(here, resolve_url(url, reply.headers.get("Location", "")))
                sender = here
        raise RegistryProtocol(
            f"{origin.authority} redirects more than {MAX_REDIRECTS} times",
            metadata={"registry": origin.authority},
        )


def parse_retry_after(text: str, now: float) -> float | None:
    """Returns the seconds of a `Retry-After` header, or None where it says nothing usable.

    Args:
        text: seconds or an HTTP date.
        now: the time of day, seconds since the epoch.
    """
    if text.isascii() and text.isdigit() and len(text) <= 9:  # noqa: PLR2004 - three decades
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None


def _failure(reply: Reply) -> LnsError:
    host = reply.asked
    through = f", through {reply.elsewhere}," if reply.elsewhere else ""
    asked = parse_retry_after(reply.headers.get("Retry-After", ""), time.time())
    if reply.status_code == _TOO_MANY:
        return TooManyRequests(
            f"{host}{through} asks to slow down",
            hint="try again later, or log in: registries give more to those they know",
            metadata={"registry": host, "status": str(reply.status_code)},
            retry_after=asked,
        )
    return RegistryUnavailable(
        f"{host}{through} answered {reply.status_code}",
        hint="the registry has a problem of its own; try again later",
        metadata={"registry": host, "status": str(reply.status_code)},
        retry_after=asked,
    )
