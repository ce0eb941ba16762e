"""One HTTP request over pooled connections: timeouts, TLS, cancelling.

No retries, redirects, credentials, cookies or proxies: what those need is decided one floor up.
"""

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import urllib3
from urllib3.exceptions import HTTPError, SSLError
from urllib3.util import parse_url

from services.chassis import context
from services.core.errors import (
    DeadlineExceeded,
    LimitExceeded,
    RegistryProtocol,
    RegistryUnavailable,
    SettingsInvalid,
)
from services.core.manifest import parse_json_object
from services.registry_gateway.adapters.origin import Origin
from services.registry_gateway.adapters.wire import PlainPool, TlsPool, Wire
from services.registry_gateway.progress import Stop

CHUNK_BYTES: Final = 1 << 20
MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
_USER_AGENT: Final = "lns-registry-gateway/0.1"
_POOLS: Final = 32


class Body(Protocol):
    """The body of a request as it is read while it is sent."""

    def read(self, size: int = -1, /) -> bytes:
        """Returns the next bytes, at most `size`; none at the end."""

    def close(self) -> None:
        """Gives up what the body is read from."""


class Truncated(RegistryUnavailable):
    """A body ended before its length; what came of it is good, the rest may be asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds: to connect, and of silence on an open connection."""

    connect: float = 10.0
    stall: float = 30.0


class Reply:
    """An answer whose body has not been read; a context manager that closes it.

    Its names are those that oras knows from `requests`.
    """

    def __init__(
        self,
        response: urllib3.BaseHTTPResponse,
        url: str,
        stop: Stop,
        owned: contextlib.ExitStack,
    ) -> None:
        self._response = response
        self._stop = stop
        self._owned = owned
        self._held: bytes | None = None
        self.url = url
        self.status_code: int = response.status
        self.headers: Mapping[str, str] = response.headers

    @property
    def reason(self) -> str:
        """The phrase beside the status; a server's text."""
        return self._response.reason or ""

    @property
    def request(self) -> "Reply":
        """Itself, for `request.url`."""
        return self

    @property
    def links(self) -> dict[str, dict[str, str]]:
        """The `Link` headers by relation."""
        found: dict[str, dict[str, str]] = {}
        for part in self.headers.get("Link", "")[:16384].split(","):
            target, _, parameters = part.partition(";")
            target = target.strip()
            if not (target.startswith("<") and target.endswith(">")):
                continue
            for parameter in parameters.split(";"):
                name, _, value = parameter.strip().partition("=")
                if name.lower() == "rel":
                    found.setdefault(value.strip('"'), {"url": target[1:-1]})
        return found

    def header_values(self, name: str) -> list[str]:
        """Returns every value of a header that may come several times."""
        return list(self._response.headers.getlist(name))

    @property
    def length(self) -> int | None:
        """`Content-Length`, or None."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None  # noqa: PLR2004 - fewer digits than 2**64

    def chunks(self, size: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Yields the body.

        Raises:
            Truncated: it ended too early.
            RegistryUnavailable: the connection broke or fell silent.
        """
        while True:
            try:
                with _translated(self.url, truncated=True):
                    chunk = self._response.read(size, decode_content=False)
            except Truncated:
                self._stop.check()  # then the broken connection is our own doing
                raise
            if not chunk:
                return
            self._stop.check()
            yield chunk

    def read(self, limit: int = MAX_DOCUMENT_BYTES) -> bytes:
        """Returns a small body whole.

        Raises:
            LimitExceeded: it is larger than `limit`.
        """
        parts: list[bytes] = []
        total = 0
        for chunk in self.chunks(64 * 1024):
            total += len(chunk)
            if total > limit:
                raise LimitExceeded(f"the answer of {_host(self.url)} is larger than {limit} bytes")
            parts.append(chunk)
        return b"".join(parts)

    def hold(self, limit: int) -> int:
        """Reads the body for a later `json`, closes the answer and returns the body's size.

        Raises:
            LimitExceeded: it is larger than `limit`.
        """
        with self:
            self._held = self.read(limit)
        return len(self._held)

    def json(self) -> dict[str, Any]:
        """Returns the body as a JSON object.

        Raises:
            RegistryProtocol: it is not one.
        """
        raw = self.read() if self._held is None else self._held
        return parse_json_object(raw, what=f"the answer of {_host(self.url)}")

    def __enter__(self) -> "Reply":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the connection back, or closes it where the body was not read to its end."""
        self._owned.close()
        if self._response.length_remaining == 0:
            self._response.read()  # http.client takes an answer for unread until its end was seen
            self._response.release_conn()
        else:
            self._response.close()


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
        """Closes idle connections."""
        self._pools.clear()

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
    ) -> Reply:
        """Sends a request and returns the answer, which the caller closes.

        Raises:
            RegistryUnavailable: no answer came; nothing is known about the request.
            RegistryProtocol: the server's certificate is not trusted.
            DeadlineExceeded: the caller's time is over, or `stop` was set.
        """
        stop = stop or Stop()
        stop.check()
        with contextlib.ExitStack() as stack:
            wire = stack.enter_context(contextlib.closing(Wire()))
            stack.enter_context(stop.waking(wire.cut))
            Wire.current.wire = wire
            try:
                response = self._open(method, url, headers, body)
            except RegistryUnavailable:
                stop.check()  # then the broken connection is our own doing
                raise
            finally:
                Wire.current.wire = None
            return Reply(response, url, stop, stack.pop_all())

    def _open(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | Body | None
    ) -> urllib3.BaseHTTPResponse:
        left = context.remaining()
        if left <= 0:
            raise DeadlineExceeded(f"no time left to ask {_host(url)}")
        timeout = urllib3.Timeout(
            connect=min(self._timeouts.connect, left), read=min(self._timeouts.stall, left)
        )
        sent = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **headers}
        began = self._clock()
        with _translated(url):
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


@contextlib.contextmanager
def _translated(url: str, *, truncated: bool = False) -> Iterator[None]:
    """Turns what urllib3 raises into errors of ours, without the URL's query (it may be signed)."""
    try:
        yield
    except SSLError as error:
        raise RegistryProtocol(
            f"no secure connection to {_host(url)}: {_cause(error)}",
            hint="add the registry's authority to registry_gateway.ca_files,"
            " or list it in LNS_REGISTRY_PLAIN_HTTP if it speaks plain HTTP",
            metadata={"host": _host(url)},
        ) from error
    except (HTTPError, OSError, ValueError) as error:
        kind = Truncated if truncated else RegistryUnavailable
        raise kind(
            f"{_host(url)} {'broke off' if truncated else 'does not answer'}: {_cause(error)}",
            hint="is the registry running, and its name right?",
            metadata={"host": _host(url)},
            retry_after=1.0,
        ) from error


def _cause(error: Exception) -> str:
    inner = getattr(error, "reason", None)
    shown = inner if isinstance(inner, Exception) else error
    if isinstance(shown, urllib3.exceptions.NewConnectionError):
        cause = shown.__cause__ or shown.__context__
        return (isinstance(cause, OSError) and cause.strerror) or str(cause or "cannot connect")
    return json.dumps(str(shown)[:200])[1:-1] or type(shown).__name__


def _host(url: str) -> str:
    try:
        return parse_url(url).netloc or url[:100]
    except HTTPError:
        return url[:100]
