"""One HTTP request over pooled connections: timeouts, TLS, cancelling, where it may lead.

No retries, redirects, credentials or cookies: what those need is decided one floor up.
"""

import contextlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import urllib3
from urllib3.exceptions import NameResolutionError, ProxyError

from services.chassis import context
from services.core.errors import (
    DeadlineExceeded,
    RegistryDenied,
    RegistryProtocol,
    RegistryUnavailable,
    SettingsInvalid,
)
from services.registry_gateway.adapters.transport.addresses import (
    Zone,
    may_send_to,
    zone_of,
    zone_of_name,
)
from services.registry_gateway.adapters.transport.http_reply import (
    CHUNK_BYTES,
    Held,
    Reply,
    cause_of,
    host_of,
    translated,
)
from services.registry_gateway.adapters.transport.masking import Secrets
from services.registry_gateway.adapters.transport.origin import Origin
from services.registry_gateway.adapters.transport.pace import Pacer, Rate
from services.registry_gateway.adapters.transport.proxies import Proxies, Proxy
from services.registry_gateway.adapters.transport.wire import PlainPool, TlsPool, Wire
from services.registry_gateway.progress import Stop

_USER_AGENT: Final = "lns-registry-gateway/0.1"
_POOLS: Final = 32
_ORIGINS: Final = 1024
_PROXY_LOGIN_WANTED: Final = 407


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
        proxies: Proxies | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes the connection pools.

        Args:
            timeouts: how long silence is borne.
            ca_files: PEM files of authorities that are trusted beside the system's.
            connections: most idle connections kept for one origin.
            proxies: which registries are reached through which.
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
        self._tls = _tls_context(ca_files)
        self._connections = connections
        self._proxies = proxies or Proxies()
        self._pools = _pooled(urllib3.PoolManager(**self._pool_options()))
        self._proxied: dict[Proxy, urllib3.ProxyManager] = {}

    def close(self) -> None:
        """Closes idle connections and ends the watch over the others."""
        self._pools.clear()
        for pools in self._proxied.values():
            pools.clear()
        self._pacer.close()

    def _pool_options(self) -> dict[str, Any]:
        return {
            "num_pools": _POOLS,
            "maxsize": self._connections,
            "block": False,
            "retries": False,
            "ssl_context": self._tls,
            "blocksize": CHUNK_BYTES,
        }

    def _pools_of(self, proxy: Proxy | None) -> urllib3.PoolManager:
        """Returns the pools for connections through a proxy, or for direct ones."""
        if proxy is None:
            return self._pools
        with self._guard:
            found = self._proxied.get(proxy)
            if found is None:
                found = urllib3.ProxyManager(
                    proxy.url,
                    proxy_headers=urllib3.make_headers(proxy_basic_auth=proxy.login or None),
                    proxy_ssl_context=self._tls,
                    **self._pool_options(),
                )
                self._proxied[proxy] = _pooled(found)
        self.secrets.remember(proxy.login)
        self.secrets.remember(proxy.login.partition(":")[2])
        return found

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
        proxy = self._proxies.of(target)
        judge = self._judge(sender, target)
        if proxy is not None:
            judge.name()
        self.secrets.sent(headers, body)
        with contextlib.ExitStack() as stack:
            wire = stack.enter_context(contextlib.closing(Wire(judge)))
            stack.enter_context(stop.waking(wire.cut))
            pace = stack.enter_context(self._pacer.watching(wire, size=size))
            held = Held(stop=stop, pace=pace, wire=wire)
            response = self._answer(held, wire, method, url, headers, body, proxy)
            self._note_zone(target, wire.peer if proxy is None else "")
            if response.status == _PROXY_LOGIN_WANTED and proxy is not None:
                response.close()
                raise _proxy_refused(proxy)
            held.owned.push(stack.pop_all())
            return Reply(response, url, held, self.secrets.masked)

    def _answer(
        self,
        held: Held,
        wire: Wire,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Body | None,
        proxy: Proxy | None,
    ) -> urllib3.BaseHTTPResponse:
        """Returns the head of the answer, whole."""
        Wire.current.wire = wire
        try:
            response = self._open(method, url, headers, body, proxy)
        except RegistryUnavailable:
            held.explain(host_of(url))
            raise
        finally:
            Wire.current.wire = None
        try:
            held.check(host_of(url))  # http.client takes headers that were cut off for whole
        except BaseException:
            response.close()
            raise
        return response

    def _judge(self, sender: Origin | None, target: Origin) -> "_Judge":
        """Returns what refuses addresses that `sender` must not name."""
        if sender is None or sender == target:
            return _Judge(sender=None, target=target, near=Zone.MACHINE)
        with self._guard:
            return _Judge(sender=sender, target=target, near=self._zones.get(sender, Zone.PUBLIC))

    def _note_zone(self, origin: Origin, peer: str) -> None:
        """Notes where an origin is: by its address, or through a proxy by its name alone."""
        with contextlib.suppress(ValueError), self._guard:
            self._zones[origin] = zone_of(peer) if peer else zone_of_name(origin.host)
            while len(self._zones) > _ORIGINS:
                self._zones.pop(next(iter(self._zones)))

    def _open(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | Body | None,
        proxy: Proxy | None,
    ) -> urllib3.BaseHTTPResponse:
        left = context.remaining()
        if left <= 0:
            raise DeadlineExceeded(f"no time left to ask {host_of(url)}")
        timeout = urllib3.Timeout(
            connect=min(self._timeouts.connect, left), read=min(self._timeouts.stall, left)
        )
        sent = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **headers}
        began = self._clock()
        with translated(url), _through(proxy):
            response = self._pools_of(proxy).urlopen(
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """Refuses addresses that a server must not name; `sender` None: it was the user."""

    sender: Origin | None
    target: Origin
    near: Zone

    def __call__(self, address: str) -> None:
        try:
            self._check(zone_of(address))
        except ValueError:
            self._check(Zone.LINK)  # nothing is known about it

    def name(self) -> None:
        """Judges the name of the target, whose address only the proxy will know."""
        self._check(zone_of_name(self.target.host))

    def _check(self, zone: Zone) -> None:
        if self.sender is not None and not may_send_to(self.near, zone):
            raise RegistryProtocol(
                f"{self.sender} sends us to {self.target}, an address that is {zone.value}",
                hint="a registry may only name addresses as far away as its own",
                metadata={"host": self.sender.authority},
            )


PoolsT = TypeVar("PoolsT", bound=urllib3.PoolManager)


def _pooled(pools: PoolsT) -> PoolsT:
    """Returns pools whose connections are those of `wire`."""
    pools.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}
    return pools


@contextlib.contextmanager
def _through(proxy: Proxy | None) -> Iterator[None]:
    """Blames a proxy for what it failed at."""
    try:
        yield
    except (ProxyError, NameResolutionError) as error:
        if proxy is None:
            raise
        if "407" in str(error.__cause__ or error):
            raise _proxy_refused(proxy) from error
        raise RegistryUnavailable(
            f"the proxy {proxy.url} does not let us through:"
            f" {cause_of(getattr(error, 'original_error', error))}",
            hint="check HTTPS_PROXY, HTTP_PROXY, NO_PROXY and registry_gateway.proxies",
            metadata={"proxy": proxy.url},
            retry_after=1.0,
        ) from error


def _proxy_refused(proxy: Proxy) -> RegistryDenied:
    return RegistryDenied(
        f"the proxy {proxy.url} {'refused the login' if proxy.login else 'wants a login'}",
        hint="write it into the proxy's address: http://USER:PASSWORD@HOST:PORT",
        metadata={"proxy": proxy.url},
    )


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
