"""The answer to one HTTP request, and what goes wrong on the way of it as errors of ours."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import urllib3
from urllib3.exceptions import HTTPError, SSLError
from urllib3.util import parse_url

from services.core.errors import LimitExceeded, RegistryProtocol, RegistryUnavailable
from services.core.manifest import parse_json_object
from services.registry_gateway.progress import Stop

CHUNK_BYTES: Final = 1 << 20
MAX_DOCUMENT_BYTES: Final = 4 * 1024 * 1024


class Truncated(RegistryUnavailable):
    """A body ended before its length; what came of it is good, the rest may be asked for."""


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
                with translated(self.url, truncated=True):
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
                raise LimitExceeded(
                    f"the answer of {host_of(self.url)} is larger than {limit} bytes"
                )
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
        return parse_json_object(raw, what=f"the answer of {host_of(self.url)}")

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


@contextlib.contextmanager
def translated(url: str, *, truncated: bool = False) -> Iterator[None]:
    """Turns what urllib3 raises into errors of ours, without the URL's query (it may be signed)."""
    try:
        yield
    except SSLError as error:
        raise RegistryProtocol(
            f"no secure connection to {host_of(url)}: {_cause(error)}",
            hint="add the registry's authority to registry_gateway.ca_files,"
            " or list it in LNS_REGISTRY_PLAIN_HTTP if it speaks plain HTTP",
            metadata={"host": host_of(url)},
        ) from error
    except (HTTPError, OSError, ValueError) as error:
        kind = Truncated if truncated else RegistryUnavailable
        raise kind(
            f"{host_of(url)} {'broke off' if truncated else 'does not answer'}: {_cause(error)}",
            hint="is the registry running, and its name right?",
            metadata={"host": host_of(url)},
            retry_after=1.0,
        ) from error


def _cause(error: Exception) -> str:
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
