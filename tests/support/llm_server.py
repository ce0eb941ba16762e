"""An LLM server of the tests' own: TLS by a private authority, messages as server-sent events."""

import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import trustme


@dataclass(slots=True)
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any] = field(default_factory=dict)


class LlmServer:
    """Serves `POST /v1/messages` on loopback; keeps what it was sent."""

    def __init__(self, name: str, key: str) -> None:
        self.received: list[Received] = []
        self.authority = trustme.CA()
        self._key = key
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.received.append(Received(self.path, dict(self.headers.items()), body))
                if self.headers.get("x-api-key") != server._key:
                    self._answer(401, b'{"error": "invalid x-api-key"}')
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Echo-Key", self.headers["x-api-key"])
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for word in ("Barley", "likes", "lime."):
                    event = f"event: delta\ndata: {json.dumps({'text': word})}\n\n".encode()
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                    time.sleep(0.05)
                self.wfile.write(b"0\r\n\r\n")

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(name).configure_cert(context)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def port(self) -> int:
        """Its port on loopback."""
        return self._server.server_port

    def __enter__(self) -> "LlmServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
