"""A proxy between a client and a real registry that breaks what a test tells it to break.

    with FaultProxy(registry.host) as proxy:
        broken = proxy.script(Match(method="GET", kind=Kind.BLOB), Reset(after=1000), times=1)
        …  # the client is given `proxy.host` in the place of the registry's
        assert broken.played == 1
        assert proxy.count(Match(method="GET", digest=digest)) == 2

A request plays the first scripted fault that matches it and is not used up; without one it passes
through. The faults are in `tests.support.faults`. Every request is recorded, in order of arrival,
with its headers and what became of it; the records of requests at work still grow.

The proxy has three doors to the same registry: `host`, and for redirects `other_host` (another
address and port) and `other_port` (the same address). `Request.peer` says which one was used.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, Self

from tests.support.http_messages import Kind, Request
from tests.support.http_peer import LOOPBACK, OTHER_LOOPBACK, Exchange, HttpPeer

__all__ = ["Fault", "FaultProxy", "Kind", "Match", "Request", "Scripted"]


class Fault(Protocol):
    """What happens to a request instead of being passed through."""

    def play(self, exchange: Exchange, proxy: "FaultProxy") -> None:
        """Deals with the whole exchange; raising ConnectionError ends its connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which requests are meant: those for which everything that is given holds."""

    method: str | None = None
    kind: Kind | None = None
    repository: str | None = None
    """Path of the repository, without host."""
    reference: str | None = None
    """Tag or digest of a manifest, digest of a blob, id of an upload session."""
    digest: str | None = None
    """As `reference`, and also what an upload commits or mounts."""
    peer: str | None = None
    """Door, `host:port`."""
    where: Callable[[Request], bool] | None = None

    def accepts(self, request: Request) -> bool:
        """Says whether a request is meant."""
        for name in ("method", "kind", "repository", "reference", "digest", "peer"):
            wanted = getattr(self, name)
            if wanted is not None and getattr(request, name) != wanted:
                return False
        return self.where is None or self.where(request)


ANY = Match()
"""Every request."""


@dataclass(slots=True, kw_only=True)
class Scripted:
    """A fault in the script of a proxy."""

    match: Match
    fault: Fault
    times: int | None
    skip: int = 0
    played: int = 0
    """How many requests it was played for."""
    first: threading.Event = field(default_factory=threading.Event)
    """Set when it is played for the first time."""

    def takes(self, request: Request) -> bool:
        """Says whether it is to be played for a request, and counts it."""
        if self.times is not None and self.played >= self.times:
            return False
        if not self.match.accepts(request):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.played += 1
        self.first.set()
        return True


class FaultProxy:
    """Passes requests to `upstream` (`host:port`, plain HTTP) and plays faults; a context manager.

    Leaving the context raises what faults failed with by mistake.
    """

    def __init__(self, upstream: str) -> None:
        self._script: list[Scripted] = []
        self._requests: list[Request] = []
        self._guard = threading.Lock()
        self._doors = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            self._front, self._other_host, self._other_port = (
                opened.enter_context(HttpPeer(self._serve, upstream=upstream, address=address))
                for address in (LOOPBACK, OTHER_LOOPBACK, LOOPBACK)
            )
            self._doors = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._doors.close()

    @property
    def host(self) -> str:
        """`host:port` that stands for the registry's."""
        return self._front.host

    @property
    def url(self) -> str:
        """Address of the front door, without a trailing slash."""
        return self._front.url

    @property
    def other_host(self) -> str:
        """`host:port` of a second door, on another host."""
        return self._other_host.host

    @property
    def other_port(self) -> str:
        """`host:port` of a third door, on the same host."""
        return self._other_port.host

    @property
    def requests(self) -> tuple[Request, ...]:
        """Every request so far, in order of arrival."""
        with self._guard:
            return tuple(self._requests)

    def select(self, match: Match) -> tuple[Request, ...]:
        """Returns the requests that a match accepts."""
        return tuple(request for request in self.requests if match.accepts(request))

    def count(self, match: Match) -> int:
        """Returns how many requests a match accepts."""
        return len(self.select(match))

    def forget(self) -> None:
        """Forgets the requests so far; the script stays."""
        with self._guard:
            self._requests.clear()

    def script(
        self, match: Match, fault: Fault, *, times: int | None = None, skip: int = 0
    ) -> Scripted:
        """Adds a fault to the script.

        Args:
            match: which requests.
            fault: what happens to them.
            times: for how many requests; None for all.
            skip: how many matching requests pass before the first is taken.
        """
        scripted = Scripted(match=match, fault=fault, times=times, skip=skip)
        with self._guard:
            self._script.append(scripted)
        return scripted

    def heal(self) -> None:
        """Drops the script: everything passes from now on."""
        with self._guard:
            self._script.clear()

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuses connections at the front door while the block runs; open ones end."""
        with self._front.refusing():
            yield

    def _serve(self, exchange: Exchange) -> None:
        request = exchange.request
        with self._guard:
            self._requests.append(request)
            chosen = next((one for one in self._script if one.takes(request)), None)
        if chosen is None:
            exchange.send(exchange.forward())
        else:
            chosen.fault.play(exchange, self)
