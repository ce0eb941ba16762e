"""Reads what a reply of a language model's API says it cost, as it passes: JSON, or events (SSE).

Nothing is held back and nothing decompressed: a reply in a content coding says nothing here, and
its requests and bytes still count. The fields are those that the APIs document:

    anthropic  usage: input_tokens, output_tokens, cache_creation_input_tokens,
               cache_read_input_tokens; in streams in `message_start` (message.usage) and
               `message_delta`
    openai     usage: prompt_tokens, completion_tokens (chat), input_tokens, output_tokens
               (responses), prompt_tokens_details.cached_tokens, input_tokens_details.cached_tokens;
               in streams in the last chunk, if the request asks for it, or `response.completed`
    google     usageMetadata: promptTokenCount, candidatesTokenCount, cachedContentTokenCount
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.vm_runner.egress_worker.heads import Header

JSON_MOST: Final = 4 << 20
"""Bytes of a JSON reply that are kept to be read at its end."""
EVENT_MOST: Final = 256 * 1024
"""Bytes of one event."""

_OK: Final = 200
_COUNT_MOST: Final = 1 << 40
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}(?:;[^\r\n]*)?\Z")

_FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    "anthropic": {
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
        "cache_read_input_tokens": "cache_read_tokens",
        "cache_creation_input_tokens": "cache_write_tokens",
    },
    "openai": {
        "prompt_tokens": "input_tokens",
        "completion_tokens": "output_tokens",
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens",
        "cached_tokens": "cache_read_tokens",
    },
    "google": {
        "promptTokenCount": "input_tokens",
        "candidatesTokenCount": "output_tokens",
        "cachedContentTokenCount": "cache_read_tokens",
    },
}
APIS: Final = frozenset(_FIELDS)
"""The names of the APIs whose replies can be read."""


@dataclass(slots=True)
class Tokens:
    """What a reply has said so far; `exact` once it said anything."""

    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    exact: bool = False


class UsageReader:
    """Reads one reply.

    Args:
        api: whose reply it is: one of `APIS`.
        status: of the reply.
        headers: of the reply.
        is_chunked: whether `feed` gets the chunks of HTTP/1.1 with their sizes.
    """

    def __init__(
        self, api: str, status: int, headers: Iterable[Header], *, is_chunked: bool
    ) -> None:
        self.tokens = Tokens()
        self._fields = _FIELDS.get(api, {})
        named = {name.lower(): value.lower() for name, value in headers}
        kind = named.get(b"content-type", b"")
        is_coded = named.get(b"content-encoding", b"identity") != b"identity"
        is_read = bool(self._fields) and status == _OK and not is_coded
        self._is_events = is_read and kind.startswith(b"text/event-stream")
        self._is_json = is_read and kind.startswith(b"application/json")
        self._dechunk = _Dechunker() if is_chunked else None
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Takes a piece of the body."""
        if not (self._is_events or self._is_json):
            return
        if self._dechunk is not None:
            data = self._dechunk.feed(data)
        self._buffer += data
        if self._is_json and len(self._buffer) > JSON_MOST:
            self._is_json = False
            self._buffer.clear()
        if self._is_events:
            self._take_events()

    def end(self) -> Tokens:
        """Returns what the reply said, at its end."""
        if self._is_json:
            self._read(bytes(self._buffer))
        elif self._is_events:
            self._take_event(bytes(self._buffer))
        self._buffer.clear()
        return self.tokens

    def _take_events(self) -> None:
        *events, rest = re.split(rb"\r\n\r\n|\n\n|\r\r", bytes(self._buffer))
        for event in events:
            self._take_event(event)
        self._buffer = bytearray(rest if len(rest) <= EVENT_MOST else b"")

    def _take_event(self, event: bytes) -> None:
        lines = [line[5:].lstrip() for line in event.splitlines() if line.startswith(b"data:")]
        data = b"\n".join(lines)
        if b"usage" in data or b"model" in data:  # the many others need not be read
            self._read(data)

    def _read(self, data: bytes) -> None:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return
        if isinstance(value, list):  # a stream of the Google API that is one JSON array
            for one in value[-1:]:
                self._take(one)
        else:
            self._take(value)

    def _take(self, value: Any) -> None:
        """Takes usage where an API puts it: at the top, or in `message` or `response`."""
        if not isinstance(value, dict):
            return
        for place in (value, value.get("message"), value.get("response")):
            if not isinstance(place, dict):
                continue
            model = place.get("model") or place.get("modelVersion")
            if isinstance(model, str) and not self.tokens.model:
                self.tokens.model = model[:128]
            usage = place.get("usage") or place.get("usageMetadata")
            if isinstance(usage, dict):
                self._count(usage)

    def _count(self, usage: Mapping[str, Any]) -> None:
        """Takes the counts of a reply; a later figure replaces an earlier one."""
        details = [usage.get(name) for name in ("prompt_tokens_details", "input_tokens_details")]
        for counts in (usage, *(one for one in details if isinstance(one, dict))):
            for name, attribute in self._fields.items():
                count = counts.get(name)
                if isinstance(count, int) and not isinstance(count, bool):
                    setattr(self.tokens, attribute, max(0, min(count, _COUNT_MOST)))
                    self.tokens.exact = True


class _Dechunker:
    """Takes the content out of chunks that were found to be in order."""

    def __init__(self) -> None:
        self._left = 0
        self._line = b""
        self._over = False

    def feed(self, data: bytes) -> bytes:
        """Returns the content in some bytes of a chunked body."""
        content: list[bytes] = []
        at = 0
        while at < len(data) and not self._over:
            if self._left:
                content.append(data[at : at + self._left])
                at += len(content[-1])
                self._left -= len(content[-1])
                continue
            end = data.find(b"\n", at)
            self._line += data[at : end + 1 if end >= 0 else len(data)]
            at = end + 1 if end >= 0 else len(data)
            if end >= 0:
                line, self._line = self._line.strip(), b""
                if line:  # empty behind each chunk
                    self._left = int(line.split(b";")[0], 16) if _CHUNK_SIZE.match(line) else 0
                    self._over = not self._left
        return b"".join(content)
