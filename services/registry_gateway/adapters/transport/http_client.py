"""One HTTP request over pooled connections: timeouts, TLS, cancelling, where it may lead.

No retries, redirects, credentials or cookies: what those need is decided one floor up.
"""

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import urllib3

from services.chassis import context
from services.core.errors import (
    DeadlineExceeded,
    RegistryProtocol,
    RegistryUnavailable,
    SettingsInvalid,
)
from services.registry_gateway.adapters.transport.addresses import Zone, may_send_to, zone_of
from services.registry_gateway.adapters.transport.http_reply import (
    CHUNK_BYTES,
    Held,
    Reply,
    host_of,
    translated,
)
from services.registry_gateway.adapters.transport.masking import Secrets
from services.registry_gateway.adapters.transport.origin import Origin
from services.registry_gateway.adapters.transport.pace import Pacer, Rate
from services.registry_gateway.adapters.transport.wire import PlainPool, TlsPool, Wire
from services.registry_gateway.progress import Stop

_USER_AGENT: Final = "lns-registry-gateway/0.1"
_POOLS: Final = 32
_ORIGINS: Final = 1024


class Body(Protocol):
    """The body of a request as it is read while it is sent."""

    def read(self, size: int = -1, /) -> bytes:
        """Returns the next bytes, at most `size`; none at the end."""

    def close(self) -> None:
        """Gives up what the body is read from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds: to connect, and of silence on an open connection; and what all else must keep to."""

    connect: float = 10.0
    stall: float = 30.0
    rate: Rate = field(default_factory=Rate)


class HttpClient:
    """Sends requests; used by many threads. A context manager."""

    def __init__(
        self,
        *,
        timeouts: Timeouts,
        ca_files: Sequence[Path] = (),
        connections: int = 16,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes the connection pools.

        Args:
            timeouts: how long silence is borne.
            ca_files: PEM files of authorities that are trusted beside the system's.
            connections: most idle connections kept for one origin.
            clock: seconds that only go forward.

        Raises:
            SettingsInvalid: a CA file cannot be read.
        """
        self._timeouts = timeouts
        self._clock = clock
        self._latencies: dict[Origin, float] = {}
        self._zones: dict[Origin, Zone] = {}
        self._pacer = Pacer(timeouts.rate)
        self.secrets = Secrets()
        self._guard = threading.Lock()
        self._pools = urllib3.PoolManager(
            num_pools=_POOLS,
            maxsize=connections,
            block=False,
            retries=False,
            ssl_context=_tls_context(ca_files),
            blocksize=CHUNK_BYTES,
        )
        self._pools.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}

    def close(self) -> None:
        """Closes idle connections and ends the watch over the others."""
        self._pools.clear()
        self._pacer.close()

    def latency(self, origin: Origin) -> float | None:
        """Returns the shortest time to an answer that an origin ever needed, in seconds."""
        with self._guard:
            return self._latencies.get(origin)

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | Body | None = None,
        stop: Stop | None = None,
        sender: Origin | None = None,
        size: int = 0,
    ) -> Reply:
        """Sends a request and returns the answer, which the caller closes.

        Args:
            method: of the request.
            url: absolute.
            headers: of the request.
            body: of the request.
            stop: ends it from another thread.
            sender: the registry that named the URL, in a redirect, a link, a realm, a location;
                None where the user did. It may only name addresses that are no nearer to this
                machine than its own (`addresses.may_send_to`), which is checked at the address
                that is really connected to.
            size: the most bytes that the bodies of request and answer have, where they are large:
                what its total time is measured by.

        Raises:
            RegistryUnavailable: no answer came; nothing is known about the request.
            HostUnknown: the name of the host has no address.
            RegistryProtocol: the server's certificate is not trusted, or `sender` must not name
                this address.
            DeadlineExceeded: the caller's time is over, or `stop` was set.
        """
        stop = stop or Stop()
        stop.check()
        target = Origin.of_url(url)
        judge = self._judge(sender, target)
        self.secrets.sent(headers, body)
        with contextlib.ExitStack() as stack:
            wire = stack.enter_context(contextlib.closing(Wire(judge)))
            stack.enter_context(stop.waking(wire.cut))
            pace = stack.enter_context(self._pacer.watching(wire, size=size))
            held = Held(stop=stop, pace=pace, wire=wire)
            Wire.current.wire = wire
            try:
                response = self._open(method, url, headers, body)
            except RegistryUnavailable:
                held.check(host_of(url))  # then the broken connection is our own doing
                raise
            finally:
                Wire.current.wire = None
            try:
                held.check(host_of(url))  # http.client takes headers that were cut off for whole
            except BaseException:
                response.close()
                raise
            self._note_zone(target, wire.peer)
            held.owned.push(stack.pop_all())
            return Reply(response, url, held, self.secrets.masked)

    def _judge(self, sender: Origin | None, target: Origin) -> Callable[[str], None]:
        """Returns what refuses addresses that `sender` must not name."""
        if sender is None or sender == target:
            return lambda _: None
        with self._guard:
            near = self._zones.get(sender, Zone.PUBLIC)

        def judge(address: str) -> None:
            try:
                zone = zone_of(address)
            except ValueError:
                zone = Zone.LINK  # nothing is known about it
            if not may_send_to(near, zone):
                raise RegistryProtocol(
                    f"{sender} sends us to {target}, an address that is {zone.value}",
                    hint="a registry may only name addresses as far away as its own",
                    metadata={"host": sender.authority},
                )

        return judge

    def _note_zone(self, origin: Origin, peer: str) -> None:
        with contextlib.suppress(ValueError), self._guard:
            self._zones[origin] = zone_of(peer)
            while len(self._zones) > _ORIGINS:
                self._zones.pop(next(iter(self._zones)))

    def _open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Body | None
    ) -> urllib3.BaseHTTPResponse:
        left = context.remaining()
        if left <= 0:
            raise DeadlineExceeded(f"no time left to ask {host_of(url)}")
        timeout = urllib3.Timeout(
            connect=min(self._timeouts.connect, left), read=min(self._timeouts.stall, left)
        )
        sent = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **headers}
        began = self._clock()
        with translated(url):
            response = self._pools.urlopen(
                method,
                url,
                headers=sent,
                body=body,
                timeout=timeout,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        if body is None:
            self._note_latency(Origin.of_url(url), self._clock() - began)
        return response

    def _note_latency(self, origin: Origin, seconds: float) -> None:
        with self._guard:
            self._latencies[origin] = min(seconds, self._latencies.get(origin, seconds))
            while len(self._latencies) > _POOLS:
                self._latencies.pop(next(iter(self._latencies)))


def _tls_context(ca_files: Sequence[Path]) -> ssl.SSLContext:
    made = ssl.create_default_context()
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in ca_files:
        try:
            made.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise SettingsInvalid(
                f"the authority file {path} cannot be used: {error}",
                hint="registry_gateway.ca_files must name PEM files with certificates",
            ) from error
    return made
