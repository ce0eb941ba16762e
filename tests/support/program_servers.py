"""Servers for real programs of a guest: git, package indexes, events, WebSockets.

All on loopback, over TLS and plain. Each name of `NAMES` is a host of its own at the
same ports. What they are asked for is kept.
"""

import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self, cast

import trustme
import wsproto
from wsproto import events

NAMES = (
    "git.test",
    "pypi.test",
    "npm.test",
    "apt.test",
    "web.test",
    "grpc.test",
    "ssh.test",
    "evil.test",
)
BIG = bytes(range(256)) * 4096
"""What `web.test/file` has: 1 MiB."""


class Handler(BaseHTTPRequestHandler):
    """Answers for the host that a request names."""

    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        """Answers from the host's folder, or its program."""
        self.dispatch()

    def do_POST(self) -> None:
        """The same, with a body."""
        self.dispatch()

    def do_HEAD(self) -> None:
        """The same without what it has."""
        self.dispatch()

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    @property
    def host(self) -> str:
        """The name that the request is for."""
        return (self.headers["Host"] or "").partition(":")[0]

    def dispatch(self) -> None:
        """Answers for the host that the request names."""
        host = self.host
        world = self.server.world
        world.asked.append((host, self.command, self.path))
        special = {
            ("web.test", "/events"): self._events,
            ("web.test", "/next"): self._next,
            ("web.test", "/socket"): self._socket,
            ("web.test", "/upload"): self._upload,
            ("web.test", "/away"): self._away,
        }.get((host, self.path))
        if special is not None:
            special()
        elif host == "git.test":
            self.git()
        else:
            self._file(world.directory / host)

    def pieces(self) -> Iterator[bytes]:
        """Yields the request's body as it comes."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers.get("Content-Length", 0))
            while left:
                piece = self.rfile.read(min(left, 65536))
                left -= len(piece)
                yield piece

    def answer(self, body: bytes, *, status: int = 200, kind: str = "text/plain") -> None:
        """Sends a whole answer."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _file(self, folder: Path) -> None:
        for _ in self.pieces():
            pass
        name = self.path.partition("?")[0].strip("/")
        path = folder / name / "index" if (folder / name).is_dir() else folder / name
        kind = (
            "application/json" if folder.name == "npm.test" and path.suffix == "" else "text/html"
        )
        if path.is_file():
            self.answer(path.read_bytes(), kind=kind)
        else:
            self.answer(b"nothing here", status=404)

    def _away(self) -> None:
        """Sends who comes to a host that no policy of these tests allows."""
        self.send_response(302)
        self.send_header("Location", f"https://evil.test:{self.server.world.port}/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _upload(self) -> None:
        digest, size = sha256(), 0
        for piece in self.pieces():
            digest.update(piece)
            size += len(piece)
            self.server.world.received += len(piece)
        self.answer(f"{size} {digest.hexdigest()} {self.headers.get('Expect', '')}".encode())

    def _events(self) -> None:
        """Sends the next event only when the one before has been read and answered."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(3):
            event = f"data: {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()
            if not self.server.world.read_on.acquire(timeout=120):
                return
        self.wfile.write(b"0\r\n\r\n")

    def _next(self) -> None:
        self.server.world.read_on.release()
        self.answer(b"")

    def _socket(self) -> None:
        """Echoes messages of a WebSocket until it is closed."""
        self.close_connection = True
        ends = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        ends.initiate_upgrade_connection(
            [(name.encode(), value.encode()) for name, value in self.headers.items()], self.path
        )
        while True:
            for event in ends.events():
                match event:
                    case events.Request():
                        self.wfile.write(ends.send(events.AcceptConnection()))
                    case events.TextMessage(data=data):
                        self.wfile.write(ends.send(events.TextMessage(data=f"heard {data}")))
                    case events.CloseConnection():
                        self.wfile.write(ends.send(event.response()))
                        return
            data = cast("ssl.SSLSocket", self.connection).recv(65536)
            if not data:
                return
            ends.receive_data(data)

    def git(self) -> None:
        """Has git's own program answer, as a web server does (CGI)."""
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.server.world.directory / "git.test"),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_USER": "somebody",
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(
            ["git", "http-backend"], input=b"".join(self.pieces()), env=environment,
            stdout=subprocess.PIPE, check=True,
        )  # fmt: skip
        head, _, body = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(fields.pop("Status", "200").split()[0])
        self.answer(body, status=status, kind=fields["Content-Type"])


class _Server(ThreadingHTTPServer):
    world: "ProgramServers"
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that goes away is no news."""


class ProgramServers:
    """Serves every name; a context manager.

    Attributes:
        directory: with a folder of files for each name.
        names: that its certificate is for.
        authority: of the certificates.
        asked: host, method and path of each request.
        read_on: released by a client that has read an event.
        received: bytes of uploads that have come, also of those that are not over.
    """

    handler: type[Handler] = Handler

    def __init__(self, directory: Path, names: Sequence[str] = NAMES) -> None:
        self.directory = directory
        self.names = names
        self.authority = trustme.CA()
        self.asked: list[tuple[str, str, str]] = []
        self.read_on = threading.Semaphore(0)
        self.received = 0
        self._servers = (self._server(secure=True), self._server(secure=False))
        self._threads = [
            threading.Thread(target=cast("Callable[[], None]", one.serve_forever), args=(0.05,))
            for one in self._servers
        ]

    @property
    def port(self) -> int:
        """The port with TLS."""
        return self._servers[0].server_port

    @property
    def plain_port(self) -> int:
        """The port without."""
        return self._servers[1].server_port

    def write(self, name: str, data: bytes) -> Path:
        """Puts a file into a host's folder: `HOST/PATH`."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def _server(self, *, secure: bool) -> _Server:
        server = _Server(("127.0.0.1", 0), self.handler)
        server.world = self
        if secure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.authority.issue_cert(*self.names).configure_cert(context)
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        return server

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()
