"""Faults that a `FaultProxy` plays, one class each; those that only answer are functions.

`after` counts bytes of the answer's body. A fault that changes an answer asks the registry first,
so that all but the change is real.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from tests.support.fault_proxy import FaultProxy
from tests.support.gate import Gate
from tests.support.http_messages import Response, answer
from tests.support.http_peer import Exchange

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_FILLER = b"a" * 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer without asking the registry."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        exchange.send(answer(self.status, self.body, self.headers))


def too_many_requests(retry_after: str | None = None) -> Answer:
    """429 with `Retry-After`: seconds, or a date."""
    return error_answer(429, "TOOMANYREQUESTS", retry_after)


def server_error(status: int = 500, retry_after: str | None = None) -> Answer:
    """500, 502, 503, …"""
    return error_answer(status, "UNKNOWN", retry_after)


def error_answer(status: int, code: str, retry_after: str | None = None) -> Answer:
    """A refusal in the form of the distribution specification."""
    headers = {"Content-Type": "application/json"}
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    body = b'{"errors":[{"code":"%s","message":"scripted"}]}' % code.encode()
    return Answer(status=status, body=body, headers=headers)


def deep_json(depth: int = 100_000, media_type: str = OCI_MANIFEST) -> Answer:
    """A manifest that is nested: 100,000 levels take 200 kB."""
    return Answer(
        status=200, body=b"[" * depth + b"]" * depth, headers={"Content-Type": media_type}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GiantBody:
    """An endless or very long body, of white space after the start of an object."""

    size: int | None = None
    """Bytes, declared by Content-Length; None sends chunks until the client goes away."""
    media_type: str = OCI_MANIFEST

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        response = Response(status=200, headers=[("Content-Type", self.media_type)])
        if self.size is not None:
            response.set_header("Content-Length", str(self.size))
        response.body = self._pieces()
        exchange.send(response)

    def _pieces(self) -> Iterator[bytes]:
        yield b"{"
        blank = b" " * 65536
        if self.size is None:
            yield from itertools.repeat(blank)
        else:
            yield from _take(itertools.repeat(blank), self.size - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """The connection is reset (RST).

    Before any answer, on the second PATCH of an upload, it is a cut between two chunks.
    """

    after: int | None = None
    """Bytes of the body before it; None resets before there is any answer."""

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        if self.after is not None:
            _send_part(exchange, exchange.forward(), self.after)
        exchange.abort()


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncate:
    """The connection ends (FIN) before the body does; the headers promise all of it."""

    after: int

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        _send_part(exchange, exchange.forward(), self.after)
        exchange.hang_up()


@dataclass(frozen=True, slots=True, kw_only=True)
class Drip:
    """The body comes slowly."""

    after: int = 0
    piece: int = 1
    """Bytes at a time."""
    interval: float = 0.05
    """Seconds between pieces."""

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        response = exchange.forward()
        pieces = _send_part(exchange, response, self.after)
        for large in pieces:
            for start in range(0, len(large), self.piece):
                exchange.wait(self.interval)
                exchange.write(large[start : start + self.piece])
        exchange.finish(response)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The answer stops until a gate is opened: for ever, if it never is."""

    gate: Gate = field(default_factory=Gate)
    after: int | None = None
    """Bytes of the body before it stops; None holds the request before the registry has it."""

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        if self.after is None:
            self.gate.pass_through(exchange)
            exchange.send(exchange.forward())
            return
        response = exchange.forward()
        rest = _send_part(exchange, response, self.after)
        self.gate.pass_through(exchange)
        for piece in rest:
            exchange.write(piece)
        exchange.finish(response)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipByte:
    """One byte of the body is another: the digest is wrong and the length right."""

    at: int = 0

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        response = exchange.forward()
        response.body = self._flipped(response.body)
        exchange.send(response)

    def _flipped(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        passed = 0
        for piece in pieces:
            index = self.at - passed
            if 0 <= index < len(piece):
                yield piece[:index] + bytes([piece[index] ^ 0xFF]) + piece[index + 1 :]
            else:
                yield piece
            passed += len(piece)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """The body is longer or shorter than it should be, and its headers agree with it."""

    by: int

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        response = exchange.forward()
        size = max(int(response.header("Content-Length") or 0) + self.by, 0)
        response.set_header("Content-Length", str(size))
        response.body = _take(itertools.chain(response.body, itertools.repeat(_FILLER)), size)
        exchange.send(response)


@dataclass(frozen=True, slots=True, kw_only=True)
class Misdeclare:
    """Content-Length is wrong by so many bytes; the body is as it should be."""

    by: int

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        response = exchange.forward()
        declared = int(response.header("Content-Length") or 0) + self.by
        response.set_header("Content-Length", str(declared))
        exchange.send(response)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceHeaders:
    """Headers of the answer are others, or missing (None): a lying Content-Type, say."""

    headers: Mapping[str, str | None]

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        response = exchange.forward()
        for name, value in self.headers.items():
            response.set_header(name, value)
        exchange.send(response)


@dataclass(frozen=True, slots=True, kw_only=True)
class IgnoreRange:
    """A request for a part is answered with 200 and the whole."""

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        exchange.send(exchange.forward(headers={"range": None}))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShiftRange:
    """A request for a part is answered with another part, that begins so many bytes earlier.

    `honest` says whether Content-Range tells what was sent, or what was asked for.
    """

    by: int = 1
    honest: bool = True

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        asked = exchange.request.headers.get("range", "")
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
        if match is None:
            exchange.send(exchange.forward())
            return
        begin, end = int(match[1]), match[2]
        last = str(int(end) - self.by) if end else ""
        response = exchange.forward(headers={"range": f"bytes={begin - self.by}-{last}"})
        if not self.honest:
            size = int(response.header("Content-Length") or 0)
            total = (response.header("Content-Range") or "/*").rpartition("/")[2]
            claimed = f"bytes {begin}-{begin + size - 1}/{total}"
            response.set_header("Content-Range", claimed)
        exchange.send(response)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """The client is sent to another door for the same thing."""

    other_port: bool = False
    """Whether only the port is another one, not the host."""
    status: int = 307

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        host = proxy.other_port if self.other_port else proxy.other_host
        location = f"http://{host}{exchange.request.target}"
        exchange.send(answer(self.status, headers={"Location": location}))


@dataclass(frozen=True, slots=True, kw_only=True)
class RedirectLoop:
    """The client is sent to where it is already."""

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        location = f"http://{exchange.request.headers['host']}{exchange.request.target}"
        exchange.send(answer(307, headers={"Location": location}))


@dataclass(frozen=True, slots=True, kw_only=True)
class CutUpload:
    """The connection is reset inside of a request's body; the registry keeps what it got."""

    after: int
    """Bytes of the request's body that the registry gets."""

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        try:
            response = exchange.forward(body=self._first(exchange.pieces()))
        except ConnectionAbortedError:
            exchange.close()
            exchange.abort()
        else:
            exchange.send(response)  # the body was shorter than that

    def _first(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        left = self.after
        for piece in pieces:
            yield piece[:left]
            left -= len(piece)
            if left < 0:
                raise ConnectionAbortedError("scripted")


@dataclass(frozen=True, slots=True, kw_only=True)
class DropAnswer:
    """The registry does what was asked and the client never hears of it."""

    def play(self, exchange: Exchange, proxy: FaultProxy) -> None:
        for _ in exchange.forward().body:
            pass
        exchange.abort()


def _send_part(exchange: Exchange, response: Response, limit: int) -> Iterator[bytes]:
    """Sends headers and `limit` bytes; returns the rest of the body."""
    exchange.start(response)
    pieces = iter(response.body)
    while limit > 0:
        piece = next(pieces, None)
        if piece is None:
            break
        exchange.write(piece[:limit])
        if len(piece) > limit:
            return itertools.chain([piece[limit:]], pieces)
        limit -= len(piece)
    return pieces


def _take(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    for piece in pieces:
        if size <= 0:
            return
        yield piece[:size]
        size -= len(piece)
