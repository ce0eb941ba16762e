"""Heads of HTTP/1 messages, read strictly: what two readers could read differently is refused.

RFC 9112. h11 judges the syntax of each head; what it takes leniently and smugglers use (obs-fold,
bare LF, `Content-Length` beside `Transfer-Encoding`) is refused before. A head that is not changed
goes on byte for byte.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Self

import h11

HEADERS_MOST: Final = 256
_END: Final = b"\r\n\r\n"
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)|\x00")
_FOLD = re.compile(rb"\n[ \t]")
_DIGITS = re.compile(rb"[0-9]{1,18}\Z")

_ANY_REQUEST: Final = h11.Request(
    method=b"GET",
    target=b"/",
    headers=[(b"host", b"x"), (b"connection", b"upgrade"), (b"upgrade", b"x")],
)
"""What a reply is read behind; it permits 101, which is judged by the real request."""

Header = tuple[bytes, bytes]


class HeadInvalid(Exception):
    """A head is malformed, or one that two readers could read differently."""


class Framing(Enum):
    """How a body is delimited."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A head.

    Attributes:
        first: the first line.
        headers: names as written and values without the spaces around them.
        version: `1.1` or `1.0`.
        framing: of the body behind it.
        length: of the body, where `framing` is LENGTH.
        raw: its bytes as they came; empty once it was changed.
    """

    first: bytes
    headers: tuple[Header, ...]
    version: bytes
    framing: Framing
    length: int = 0
    raw: bytes = b""

    def values(self, name: bytes) -> list[bytes]:
        """Returns the values of the headers of a name, which is in lower case."""
        return [value for one, value in self.headers if one.lower() == name]

    def tokens(self, name: bytes) -> set[bytes]:
        """Returns the members of a list header, in lower case."""
        joined = b",".join(self.values(name))
        return {token.strip().lower() for token in joined.split(b",") if token.strip()}

    def encode(self) -> bytes:
        """Returns its bytes: as they came, unless it was changed."""
        if self.raw:
            return self.raw
        lines = [self.first, *(name + b": " + value for name, value in self.headers)]
        return b"\r\n".join(lines) + _END

    def changed(self, headers: tuple[Header, ...], *, first: bytes = b"") -> Self:
        """Returns the head with other headers, and another first line where one is given."""
        first = first or self.first
        if headers == self.headers and first == self.first:
            return self
        return replace(self, headers=headers, first=first, raw=b"")

    def without(self, names: Iterable[bytes]) -> Self:
        """Returns the head without the headers of some names, which are in lower case."""
        gone = set(names)
        return self.changed(tuple(one for one in self.headers if one[0].lower() not in gone))

    @property
    def keeps_alive(self) -> bool:
        """Whether another message may follow on the connection."""
        tokens = self.tokens(b"connection")
        if self.version == b"1.0":
            return b"keep-alive" in tokens
        return b"close" not in tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead(Head):
    """The head of a request."""

    method: bytes
    target: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyHead(Head):
    """The head of a reply; 1xx replies have no body and are followed by another reply."""

    status: int


def split_head(data: bytes | bytearray, most: int) -> int | None:
    """Returns the length of the head that bytes begin with, None while it is not complete.

    Raises:
        HeadInvalid: it is longer than `most`, or its lines do not end as lines do.
    """
    end = data.find(_END)
    whole = data[:end] if end >= 0 else data.removesuffix(b"\r")  # its line feed is to come
    if _BARE.search(whole):
        raise HeadInvalid("a line that does not end in CR LF")
    if end < 0:
        if len(data) > most:
            raise HeadInvalid(f"a head of more than {most} bytes")
        return None
    if end + len(_END) > most:
        raise HeadInvalid(f"a head of more than {most} bytes")
    return end + len(_END)


def parse_request(head: bytes, *, most: int) -> RequestHead:
    """Reads the head of a request.

    Raises:
        HeadInvalid: it is malformed.
    """
    first, headers = _lines(head)
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=most)
    event = _event(reader, head)
    if not isinstance(event, h11.Request):
        raise HeadInvalid("no request")
    framing, length = _framing(headers)
    if framing is Framing.CHUNKED and event.http_version == b"1.0":
        raise HeadInvalid("chunks in HTTP/1.0")
    return RequestHead(
        first=first,
        headers=headers,
        version=event.http_version,
        framing=framing or Framing.NONE,
        length=length,
        raw=head,
        method=event.method,
        target=event.target,
    )


def parse_reply(head: bytes, *, method: bytes, most: int) -> ReplyHead:
    """Reads the head of the reply to a request of some method.

    Raises:
        HeadInvalid: it is malformed.
    """
    first, headers = _lines(head)
    reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=most)
    reader.send(_ANY_REQUEST)
    event = _event(reader, head)
    if not isinstance(event, h11.Response | h11.InformationalResponse):
        raise HeadInvalid("no reply")
    framing, length = _framing(headers)
    status = event.status_code
    if status < 200 or status in (204, 304) or method == b"HEAD":  # noqa: PLR2004 - RFC 9112, 6.3
        framing, length = Framing.NONE, 0
    return ReplyHead(
        first=first,
        headers=headers,
        version=event.http_version,
        framing=Framing.CLOSE if framing is None else framing,
        length=length,
        raw=head,
        status=status,
    )


def _event(reader: h11.Connection, head: bytes) -> object:
    try:
        reader.receive_data(head)
        return reader.next_event()
    except h11.ProtocolError as error:
        raise HeadInvalid(str(error)) from error


def _lines(head: bytes) -> tuple[bytes, tuple[Header, ...]]:
    if _FOLD.search(head):
        raise HeadInvalid("a header folded over lines")
    first, *lines = head[: -len(_END)].split(b"\r\n")
    if len(lines) > HEADERS_MOST:
        raise HeadInvalid(f"more than {HEADERS_MOST} headers")
    headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise HeadInvalid("a header without a colon")
        headers.append((name, value.strip(b" \t")))
    return first, tuple(headers)


def _framing(headers: tuple[Header, ...]) -> tuple[Framing | None, int]:
    """Returns how the body behind headers is delimited; None where they do not say."""
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    codings = [value for name, value in headers if name.lower() == b"transfer-encoding"]
    if codings:
        if lengths:
            raise HeadInvalid("Content-Length beside Transfer-Encoding")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise HeadInvalid("a Transfer-Encoding other than chunked")
        return Framing.CHUNKED, 0
    if not lengths:
        return None, 0
    if len(lengths) > 1 or not _DIGITS.match(lengths[0]):
        raise HeadInvalid("more or less than one Content-Length")
    length = int(lengths[0])
    return (Framing.LENGTH, length) if length else (Framing.NONE, 0)
