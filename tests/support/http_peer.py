"""An HTTP server of tests that stands before a real one and decides on every request itself.

A `HttpPeer` listens on loopback and gives each request, as an `Exchange`, to one function: that may
pass it to the server behind (`forward`), change what comes back, answer by itself (`send`), or
break the connection at any byte (`abort`, `hang_up`). Everything is streamed. What the function
raises, other than errors of connections, is raised again by `close`: no test passes over it.
"""

import contextlib
import http.client
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

from tests.support.http_messages import BODILESS, Request, Response

LOOPBACK = "127.0.0.1"
OTHER_LOOPBACK = "127.0.0.2"
"""A second host as clients see it: the whole of 127.0.0.0/8 is loopback on Linux."""

_CHUNK_BYTES = 64 * 1024
_UPSTREAM_TIMEOUT_SECONDS = 60.0
_HOP_BY_HOP = frozenset(
    ("connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding")
)


class Exchange:
    """One request and what becomes of it."""

    def __init__(self, handler: "_Handler", peer: "HttpPeer") -> None:
        self._handler = handler
        self._peer = peer
        self._stack = contextlib.ExitStack()
        self._chunked = False
        self.request = Request(
            peer=peer.host,
            method=handler.command,
            target=handler.path,
            headers={
                name.lower(): ", ".join(handler.headers.get_all(name, []))
                for name in handler.headers.keys()  # noqa: SIM118 - a message iterates over lines
            },
        )
        self._body = _body_of(handler, self.request)

    def pieces(self) -> Iterator[bytes]:
        """Returns what is left of the request's body, as it comes."""
        return self._body

    def read_body(self) -> bytes:
        """Returns what is left of the request's body."""
        return b"".join(self._body)

    def forward(
        self,
        *,
        headers: Mapping[str, str | None] | None = None,
        body: Iterable[bytes] | None = None,
    ) -> Response:
        """Passes the request to the server behind and returns its answer, not yet sent.

        Args:
            headers: what is sent in the place of the request's own, by lower-case name; None
                removes one.
            body: what is sent instead of the request's body; a ConnectionError that it raises
                breaks the connection to the server behind, too.
        """
        connection = http.client.HTTPConnection(
            self._peer.upstream, timeout=_UPSTREAM_TIMEOUT_SECONDS
        )
        self._stack.callback(connection.close)
        wanted = {**self.request.headers, **(headers or {}), "connection": "close"}
        chunked = "chunked" in self.request.headers.get("transfer-encoding", "")
        connection.putrequest(
            self.request.method, self.request.target, skip_host=True, skip_accept_encoding=True
        )
        for name, value in wanted.items():
            if value is not None and (name not in _HOP_BY_HOP or name == "connection"):
                connection.putheader(name, value)
        if chunked:
            connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        for piece in self._body if body is None else body:
            try:
                connection.send(_as_chunk(piece) if chunked else piece)
            except ConnectionError:
                break  # it answered before it read everything, which is its right
        if chunked:
            connection.send(_as_chunk(b""))
        reply = self._stack.enter_context(connection.getresponse())
        kept = [(n, v) for n, v in reply.getheaders() if n.lower() not in _HOP_BY_HOP]
        pieces = iter(lambda: reply.read(_CHUNK_BYTES), b"")
        return Response(status=reply.status, headers=kept, body=pieces)

    def send(self, response: Response) -> None:
        """Sends a whole answer; one that is not as long as it says ends with the connection."""
        self.start(response)
        if self._has_body(response.status):
            for piece in response.body:
                self.write(piece)
        self.finish(response)

    def start(self, response: Response) -> None:
        """Sends status and headers, after the rest of the request's body was read."""
        for _ in self._body:
            pass
        self._handler.send_response_only(response.status)
        for name, value in response.headers:
            self._handler.send_header(name, value)
        if self._has_body(response.status) and response.header("Content-Length") is None:
            self._chunked = True
            self._handler.send_header("Transfer-Encoding", "chunked")
        self.request.status = response.status
        self._handler.end_headers()

    def write(self, data: bytes) -> None:
        """Sends bytes of the body; nothing where the answer has none."""
        if data and self._has_body(self.request.status):
            self.request.sent_bytes += len(data)  # before a client that has it all can look
            self._handler.wfile.write(_as_chunk(data) if self._chunked else data)

    def finish(self, response: Response) -> None:
        """Ends an answer that was started and written in pieces."""
        if self._chunked:
            self._handler.wfile.write(_as_chunk(b""))
        elif self._has_body(response.status):
            declared = response.header("Content-Length")
            if declared != str(self.request.sent_bytes):
                self.hang_up()

    def abort(self) -> None:
        """Resets the connection (RST): what was sent and not yet read is lost to the client."""
        connection = self._handler.connection
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(connection.detach())
        self._handler.close_connection = True

    def hang_up(self) -> None:
        """Ends the connection after what was sent (FIN)."""
        self._handler.close_connection = True

    def wait(self, seconds: float) -> None:
        """Lets time pass.

        Raises:
            ConnectionAbortedError: the peer is closed.
        """
        if self._peer.closing.wait(seconds):
            raise ConnectionAbortedError("the peer is closed")

    def close(self) -> None:
        """Ends the connection to the server behind; done at the end in any case."""
        self._stack.close()

    def _has_body(self, status: int | None) -> bool:
        return self.request.method != "HEAD" and status not in BODILESS


class HttpPeer:
    """Serves one loopback address until it is closed; a context manager.

    Args:
        serve: decides on each request; called in a thread of the request's connection.
        upstream: `host:port` of the plain HTTP server behind; unused by one that never forwards.
        address: loopback address to listen on; the port is chosen by the system.
    """

    def __init__(
        self, serve: Callable[[Exchange], None], *, upstream: str = "", address: str = LOOPBACK
    ) -> None:
        self.upstream = upstream
        self.closing = threading.Event()
        self._serve = serve
        self._guard = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._problems: list[Exception] = []
        self._listen((address, 0))
        name = self._listener.getsockname()
        self._address: tuple[str, int] = (name[0], name[1])
        self.host = f"{name[0]}:{name[1]}"
        self.url = f"http://{self.host}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends every connection and thread.

        Raises:
            ExceptionGroup: of what requests failed with for other reasons than connections.
        """
        self.closing.set()
        self._shut()
        for thread in self._threads:
            thread.join()
        if self._problems:
            raise ExceptionGroup(f"requests to {self.host} failed", self._problems)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuses connections (ECONNREFUSED) while the block runs, and ends those that are open."""
        self._shut()
        try:
            yield
        finally:
            self._listen(self._address)

    def _listen(self, address: tuple[str, int]) -> None:
        self._listener = socket.create_server(address, backlog=128)
        thread = threading.Thread(target=self._accept, args=(self._listener,))
        self._threads.append(thread)
        thread.start()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):  # twice
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept, which close would not
        self._listener.close()
        with self._guard:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._converse, args=(connection, address))
            with self._guard:
                self._connections.add(connection)
                self._threads.append(thread)
            thread.start()

    def _converse(self, connection: socket.socket, address: object) -> None:
        try:
            with contextlib.suppress(ConnectionError):  # the client is gone, or was sent away
                _Handler(self, self._serve, connection, address, None)
        except Exception as problem:  # noqa: BLE001 - kept for `close`
            self._problems.append(problem)
        finally:
            with self._guard:
                self._connections.discard(connection)
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, peer: HttpPeer, serve: Callable[[Exchange], None], *arguments: Any) -> None:
        self._peer = peer
        self._decide = serve
        super().__init__(*arguments)  # handles every request of the connection before it returns

    def _any(self) -> None:
        exchange = Exchange(self, self._peer)
        with contextlib.closing(exchange):
            try:
                self._decide(exchange)
            except BaseException:
                self.close_connection = True
                raise

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing: tests read what was recorded."""


def _body_of(handler: BaseHTTPRequestHandler, request: Request) -> Iterator[bytes]:
    chunked = "chunked" in request.headers.get("transfer-encoding", "")
    pieces = (
        _iter_chunks(handler)
        if chunked
        else _iter_sized(handler, int(request.headers.get("content-length", "0")))
    )
    for piece in pieces:
        request.received_bytes += len(piece)
        yield piece


def _iter_sized(handler: BaseHTTPRequestHandler, size: int) -> Iterator[bytes]:
    while size:
        piece = handler.rfile.read1(min(size, _CHUNK_BYTES))
        if not piece:
            raise ConnectionAbortedError("the client went away in the middle of its request")
        size -= len(piece)
        yield piece


def _iter_chunks(handler: BaseHTTPRequestHandler) -> Iterator[bytes]:
    while line := handler.rfile.readline():
        size = int(line.split(b";")[0], 16)
        yield from _iter_sized(handler, size)
        while handler.rfile.readline().strip() and not size:
            pass  # trailers
        if not size:
            return
    raise ConnectionAbortedError("the client went away in the middle of its request")


def _as_chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
