"""Servers that want a key: those of `program_servers`, and Anthropic's API as its SDK wants it.

Whoever brings no key, or a placeholder, gets a 401; what comes with the right one is noted.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from tests.support.program_servers import Handler, ProgramServers

LLM = "api.anthropic.com"
INPUT_TOKENS, OUTPUT_TOKENS = 120, 34
ANSWER = ("Barley", "likes", "lime.")
OWNER = "the owner of the key"


class KeyedHandler(Handler):
    """Answers whoever has the key of the host."""

    def dispatch(self) -> None:
        """Looks at the key first; `/open` is for everybody."""
        world = cast("KeyedServers", self.server.world)
        how, key = _key_of(self.headers)
        if self.path == "/open":
            self.answer(b"open\n")
        elif key != world.keys.get(self.host):
            world.refused.append((self.host, key))
            self._refuse(key)
        else:
            world.admitted.append((self.host, how, self.headers.get("User-Agent", "")))
            self._admit()

    def _admit(self) -> None:
        if self.path == "/whoami":
            self.answer(f"{OWNER}\n".encode())
        elif self.path == "/v1/messages":
            self._message(json.loads(b"".join(self.pieces())))
        elif self.host == "github.com":
            self.git()
        else:
            super().dispatch()

    def _refuse(self, key: str) -> None:
        for _ in self.pieces():
            pass
        body = b"who are you?\n"
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="tests"')
        self.send_header("Refused-Key", key)  # a service that tells everybody
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _message(self, asked: Mapping[str, Any]) -> None:
        usage = {"input_tokens": INPUT_TOKENS, "output_tokens": 1}
        message: dict[str, Any] = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": asked["model"],
            "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage,
        }  # fmt: skip
        if asked.get("stream"):
            self._stream(message)
            return
        message["content"] = [{"type": "text", "text": " ".join(ANSWER)}]
        message["usage"] = usage | {"output_tokens": OUTPUT_TOKENS}
        message["stop_reason"] = "end_turn"
        self.answer(json.dumps(message).encode(), kind="application/json")

    def _stream(self, message: Mapping[str, Any]) -> None:
        text = {"type": "content_block_start", "index": 0}
        end = {"stop_reason": "end_turn", "stop_sequence": None}
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": message},
            {**text, "content_block": {"type": "text", "text": ""}},
            *(
                {"type": "content_block_delta", "index": 0,
                 "delta": {"type": "text_delta", "text": f"{word} "}}
                for word in ANSWER
            ),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": end, "usage": {"output_tokens": OUTPUT_TOKENS}},
            {"type": "message_stop"},
        ]  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            data = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")


class KeyedServers(ProgramServers):
    """Serves names that want a key.

    Attributes:
        keys: by host.
        admitted: host, scheme of the key and program of each request that brought the right one.
        refused: host, and what came in the key's place.
    """

    handler = KeyedHandler

    def __init__(self, directory: Path, keys: Mapping[str, str]) -> None:
        super().__init__(directory, tuple(keys))
        self.keys = keys
        self.admitted: list[tuple[str, str, str]] = []
        self.refused: list[tuple[str, str]] = []


def _key_of(headers: Any) -> tuple[str, str]:
    """Returns how a request brings a key, and the key."""
    if key := headers.get("x-api-key"):
        return "x-api-key", key
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        return "basic", base64.b64decode(value).decode().partition(":")[2]
    return scheme.lower(), value
