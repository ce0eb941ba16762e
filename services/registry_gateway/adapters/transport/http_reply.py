"""The answer to one HTTP request, and what goes wrong on the way of it as errors of ours."""

import contextlib
import json
import socket
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import urllib3
from urllib3.exceptions import HTTPError, NameResolutionError, SSLError
from urllib3.util import parse_url

from services.chassis import context
from services.core.errors import (
    DeadlineExceeded,
    LimitExceeded,
    RegistryProtocol,
    RegistryUnavailable,
)
from services.core.manifest import parse_json_object
from services.registry_gateway.adapters.transport.pace import Pace
from services.registry_gateway.adapters.transport.wire import Wire
from services.registry_gateway.progress import Stop

CHUNK_BYTES: Final = 1 << 20
MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024
_MOMENT: Final = 0.001
_PIECE_BYTES: Final = 64 * 1024
_GZIP_MAGIC: Final = b"\x1f\x8b"
_GZIP_WINDOW: Final = 31


class Truncated(RegistryUnavailable):
    """A body ended before its length; what came of it is good, the rest may be asked for."""


class TooLong(LimitExceeded):
    """A body has more bytes than were asked for."""


class HostUnknown(RegistryUnavailable):
    """The name of the host has no address."""

    resolver_failed = False
    """Whether it is only that no name server answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a request holds until its answer is closed.

    Attributes:
        stop: ends it from another thread.
        pace: ends it when it is too slow.
        wire: its connection.
        owned: what ends with it.
    """

    stop: Stop
    pace: Pace
    wire: Wire
    owned: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def check(self, host: str) -> None:
        """Raises what broke the connection where it was our own doing."""
        self.stop.check()
        self.pace.check(host)

    def explain(self, host: str) -> None:
        """Raises why a request failed where that is not the registry's fault.

        A caller with little time left bounds the timeouts of its request: what then looks like a
        silent registry is the end of the caller's time.

        Raises:
            DeadlineExceeded: the caller's time is over, or it was stopped.
            RegistryUnavailable: it was too slow.
        """
        self.check(host)
        if context.remaining() <= _MOMENT:
            raise DeadlineExceeded(f"{host} did not answer in the time that the call had")


class Reply:
    """An answer whose body has not been read; a context manager that closes it.

    Its names are those that oras knows from `requests`.
    """

    def __init__(
        self,
        response: urllib3.BaseHTTPResponse,
        url: str,
        held: Held,
        masked: Callable[[str], str] = str,
    ) -> None:
        self._response = response
        self._held = held
        self._body: bytes | None = None
        self.url = url
        self.asked = host_of(url)
        """The name of the registry that was asked."""
        self.elsewhere = ""
        """The other host that it sent us on to, where it did and that one answered."""
        self.masked = masked
        """Returns a text of the server without what it was sent."""
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

    def chunks(self, most: int, *, size: int = CHUNK_BYTES) -> Iterator[bytes]:
        """Yields the body in pieces of at most `size` bytes.

        Raises:
            TooLong: it has more than `most` bytes; those were yielded.
            Truncated: it ended too early.
            RegistryUnavailable: the connection broke, fell silent or is too slow.
        """
        left = most
        while True:
            # One byte more than may come, to notice a body that is too long.
            chunk = self._read(min(size, left + 1))
            if not chunk:
                self._held.check(host_of(self.url))  # a body without a length ends with a cut
                return
            self._held.stop.check()
            if len(chunk) > left:
                if left:
                    yield chunk[:left]
                raise TooLong(f"the answer of {host_of(self.url)} is larger than {most} bytes")
            left -= len(chunk)
            yield chunk

    def _read(self, size: int) -> bytes:
        try:
            with translated(self.url, truncated=True):
                return self._response.read(size, decode_content=False)
        except Truncated:
            self._held.explain(host_of(self.url))
            raise

    def read(self, most: int) -> bytes:
        """Returns a small body whole.

        Raises:
            TooLong: it has more than `most` bytes.
        """
        return b"".join(self.chunks(most, size=_PIECE_BYTES))

    def content(self, most: int) -> bytes:
        """Returns a small body without the encoding that the server gave it unasked.

        Raises:
            TooLong: it has more than `most` bytes, before or after it is decoded.
            RegistryProtocol: it is damaged, or encoded in a way that lns does not read.
        """
        raw = self.read(most)
        encoding = self.headers.get("Content-Encoding", "").strip().lower()
        if encoding in ("", "identity") or not raw:
            return raw
        if encoding not in ("gzip", "x-gzip"):
            raise RegistryProtocol(
                f"{host_of(self.url)} encoded its answer as {encoding[:40]!r}, unasked"
            )
        if not raw.startswith(_GZIP_MAGIC):
            return raw  # only the header says so
        reader = zlib.decompressobj(_GZIP_WINDOW)
        try:
            plain = reader.decompress(raw, most + 1)
        except zlib.error as error:
            raise RegistryProtocol(
                f"the answer of {host_of(self.url)} is damaged: {error}"
            ) from error
        if len(plain) > most:
            raise TooLong(f"the answer of {host_of(self.url)} is larger than {most} bytes")
        if not reader.eof:
            raise RegistryProtocol(f"the answer of {host_of(self.url)} ends too early")
        return plain

    def hold(self, most: int) -> int:
        """Reads the body for a later `json`, closes the answer and returns the body's size.

        Raises:
            TooLong: it has more than `most` bytes.
        """
        with self:
            self._body = self.content(most)
        return len(self._body)

    def document(self, most: int = MAX_DOCUMENT_BYTES) -> dict[str, Any]:
        """Returns the body, of at most `most` bytes, as a JSON object.

        Raises:
            RegistryProtocol: it is not one.
            TooLong: it is larger.
        """
        return parse_json_object(self.content(most), what=f"the answer of {host_of(self.url)}")

    def json(self) -> dict[str, Any]:
        """Returns what `hold` has read as a JSON object; for oras, which knows no bounds.

        Raises:
            RegistryProtocol: it is not one.
        """
        if self._body is None:
            raise TypeError("a body is held before it is parsed")
        return parse_json_object(self._body, what=f"the answer of {host_of(self.url)}")

    def __enter__(self) -> "Reply":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the connection back, or closes it where the body was not read to its end."""
        self._held.owned.close()
        if self._response.length_remaining == 0:
            self._response.read()  # http.client takes an answer for unread until its end was seen
            self._response.release_conn()
        else:
            self._response.close()


@contextlib.contextmanager
def translated(url: str, *, truncated: bool = False) -> Iterator[None]:
    """Turns what urllib3 raises into errors of ours, without the URL's query (it may be signed)."""
    try:
        yield
    except SSLError as error:
        raise RegistryProtocol(
            f"no secure connection to {host_of(url)}: {cause_of(error)}",
            hint="add the registry's authority to registry_gateway.ca_files,"
            " or list it in LNS_REGISTRY_PLAIN_HTTP if it speaks plain HTTP",
            metadata={"host": host_of(url)},
        ) from error
    except NameResolutionError as error:
        unknown = HostUnknown(
            f"the name of the registry {host_of(url)} has no address: {cause_of(error)}",
            hint="check the spelling of the registry's name",
            metadata={"host": host_of(url)},
        )
        unknown.resolver_failed = (
            isinstance(error.__cause__, socket.gaierror)
            and error.__cause__.errno == socket.EAI_AGAIN
        )
        raise unknown from error
    except (HTTPError, OSError, ValueError) as error:
        kind = Truncated if truncated else RegistryUnavailable
        raise kind(
            f"{host_of(url)} {'broke off' if truncated else 'does not answer'}: {cause_of(error)}",
            hint="is the registry running, and its name right?",
            metadata={"host": host_of(url)},
            retry_after=1.0,
        ) from error


def cause_of(error: Exception) -> str:
    """Returns why a request failed, in one harmless line."""
    inner = getattr(error, "reason", None)
    shown = inner if isinstance(inner, Exception) else error
    if isinstance(shown, urllib3.exceptions.NewConnectionError):
        cause = shown.__cause__ or shown.__context__
        return (isinstance(cause, OSError) and cause.strerror) or str(cause or "cannot connect")
    return json.dumps(str(shown)[:200])[1:-1] or type(shown).__name__


def host_of(url: str) -> str:
    """Returns the host of a URL, with its port, for messages."""
    try:
        return parse_url(url).netloc or url[:100]
    except HTTPError:
        return url[:100]
