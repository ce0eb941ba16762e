"""The demo's LLM: answers as Anthropic's API does, over TLS and in events, whoever has the key.

Run with a port, a file to write its authority's certificate to, and the file with the key.
"""

import json
import ssl
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

NAME = "api.anthropic.com"


def answer(messages: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The events of an answer: first it wants a note read, then it says what is in it."""
    last = messages[-1]["content"]
    usage = {"input_tokens": len(json.dumps(messages)) // 4, "output_tokens": 1}
    yield {"type": "message_start", "message": {"model": "claude-sonnet-4-5", "usage": usage}}
    yield from text("I need the note of that field." if isinstance(last, str) else told(last))
    if isinstance(last, str):
        tool = {"type": "tool_use", "id": "tool_1", "name": "read_note", "input": {}}
        arguments = {"type": "input_json_delta", "partial_json": '{"name": "fields/north.md"}'}
        yield {"type": "content_block_start", "index": 1, "content_block": tool}
        yield {"type": "content_block_delta", "index": 1, "delta": arguments}
        yield {"type": "content_block_stop", "index": 1}
    reason = "tool_use" if isinstance(last, str) else "end_turn"
    end = {"stop_reason": reason, "stop_sequence": None}
    yield {"type": "message_delta", "delta": end, "usage": {"output_tokens": 40}}
    yield {"type": "message_stop"}


def told(results: list[dict[str, Any]]) -> str:
    """What the LLM makes of a note: its last line."""
    return "Water it from elsewhere. " + str(results[0]["content"]).strip().splitlines()[-1]


def text(words: str) -> Iterator[dict[str, Any]]:
    """The events of a text, one a word."""
    block = {"type": "text", "text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    for word in words.split():
        delta = {"type": "text_delta", "text": f"{word} "}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}


class Handler(BaseHTTPRequestHandler):
    """Serves `POST /v1/messages`."""

    protocol_version = "HTTP/1.1"
    key = ""

    def do_POST(self) -> None:
        """Answers whoever has the key."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = self.headers["x-api-key"] == self.key
        print(f"POST {self.path} with {self.headers['x-api-key']}: {'200' if known else '401'}")
        sys.stdout.flush()
        self.send_response(200 if known else 401)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in answer(asked["messages"]) if known else ():
            data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        """What it has to say is printed above."""


def main(port: str, authority: str, key: str) -> None:
    """Serves until it is ended."""
    Handler.key = Path(key).read_text().strip()
    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer = trustme.CA()
    issuer.issue_cert(NAME).configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    issuer.cert_pem.write_to_path(f"{authority}.new")
    Path(f"{authority}.new").rename(authority)  # it is there when the server is
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
