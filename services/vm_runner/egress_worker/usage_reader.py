"""Reads what a reply of a language model's API says it cost, as it passes: JSON, or events (SSE).

Nothing is held back: a copy is read, decoded where it comes in gzip or deflate; a reply in another
coding says nothing here. The fields are those that the APIs document:

    anthropic  usage: input_tokens, output_tokens, cache_creation_input_tokens (of those kept for an
               hour: cache_creation.ephemeral_1h_input_tokens), cache_read_input_tokens; in streams
               in `message_start` (message.usage) and `message_delta`
    openai     usage: prompt_tokens, completion_tokens (chat), input_tokens, output_tokens
               (responses), prompt_tokens_details.cached_tokens, input_tokens_details.cached_tokens,
               which are part of the input; in streams in the last chunk, if the request asks for
               it, or `response.completed`
    google     usageMetadata: promptTokenCount, toolUsePromptTokenCount, candidatesTokenCount,
               thoughtsTokenCount; cachedContentTokenCount, which is part of the prompt
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.core.budgets.metering import Tokens
from services.vm_runner.egress_worker.codings import Decoded
from services.vm_runner.egress_worker.heads import Header

JSON_MOST: Final = 4 << 20
"""Bytes of a JSON reply that are kept to be read at its end."""
EVENT_MOST: Final = 2 << 20
"""Bytes of one event; the last of OpenAI's responses repeats all that was written."""

_OK: Final = 200
_COUNT_MOST: Final = 1 << 40
_BLANK = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}(?:;[^\r\n]*)?\Z")

_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    "anthropic": frozenset((
        "input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
        "ephemeral_1h_input_tokens",
    )),
    "openai": frozenset((
        "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "cached_tokens",
    )),
    "google": frozenset((
        "promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount",
        "thoughtsTokenCount", "cachedContentTokenCount",
    )),
}  # fmt: skip
_DETAILS: Final = ("prompt_tokens_details", "input_tokens_details", "cache_creation")
APIS: Final = frozenset(_FIELDS)
"""The names of the APIs whose replies can be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What a reply said; `exact` if it said anything."""

    model: str = ""
    tokens: Tokens = field(default_factory=Tokens)
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
        self._api = api
        self._model = ""
        self._counts: dict[str, int] = {}
        self._fields = _FIELDS.get(api, frozenset())
        named = {name.lower(): value.lower() for name, value in headers}
        kind = named.get(b"content-type", b"")
        self._decoded = Decoded(named.get(b"content-encoding", b"identity"))
        is_read = bool(self._fields) and status == _OK and self._decoded.readable
        self._is_events = is_read and kind.startswith(b"text/event-stream")
        self._is_json = is_read and kind.startswith(b"application/json")
        self._dechunk = _Dechunker() if is_chunked else None
        self._buffer = bytearray()
        self._is_cut = False

    def feed(self, data: bytes) -> None:
        """Takes a piece of the body."""
        if not (self._is_events or self._is_json):
            return
        if self._dechunk is not None:
            data = self._dechunk.feed(data)
        fresh = self._decoded.feed(data)
        self._buffer += fresh
        if self._is_events:
            self._take_events(len(fresh))
        if len(self._buffer) > (JSON_MOST if self._is_json else EVENT_MOST):
            self._is_json = self._is_events = False
            self._is_cut = True
            self._buffer.clear()

    def end(self) -> Reported:
        """Returns what the reply said, at its end."""
        if self._is_json:
            self._read(bytes(self._buffer))
        elif self._is_events:
            self._take_event(bytes(self._buffer))
        self._buffer.clear()
        return Reported(
            model=self._model,
            tokens=_tokens(self._api, self._counts),
            exact=bool(self._counts) and self._decoded.readable and not self._is_cut,
        )

    @staticmethod
    def nothing() -> Reported:
        """Returns what a reply said that never came."""
        return Reported()

    def _take_events(self, fresh: int) -> None:
        """Takes the events that the last `fresh` bytes end; what was looked at is not again."""
        known = max(0, len(self._buffer) - fresh - 3)
        taken = 0
        for blank in _BLANK.finditer(bytes(self._buffer[known:])):
            self._take_event(bytes(self._buffer[taken : known + blank.start()]))
            taken = known + blank.end()
        del self._buffer[:taken]

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
            if isinstance(model, str) and not self._model:
                self._model = model[:128]
            usage = place.get("usage") or place.get("usageMetadata")
            if isinstance(usage, dict):
                self._count(usage)

    def _count(self, usage: Mapping[str, Any]) -> None:
        """Takes the counts of a reply; a later figure replaces an earlier one."""
        details = [usage.get(name) for name in _DETAILS]
        for counts in (usage, *(one for one in details if isinstance(one, dict))):
            for name in self._fields & counts.keys():
                count = counts[name]
                if isinstance(count, int) and not isinstance(count, bool):
                    self._counts[name] = max(0, min(count, _COUNT_MOST))


def _tokens(api: str, counts: Mapping[str, int]) -> Tokens:
    """Returns counts with each token in one of them, whatever the API's fields include."""

    def sum_of(*names: str) -> int:
        return sum(counts.get(name, 0) for name in names)

    if api == "anthropic":
        written, long = sum_of("cache_creation_input_tokens"), sum_of("ephemeral_1h_input_tokens")
        return Tokens(
            input=sum_of("input_tokens"),
            output=sum_of("output_tokens"),
            cache_read=sum_of("cache_read_input_tokens"),
            cache_write=max(0, written - long),
            cache_write_long=long,
        )
    if api == "google":
        read = sum_of("promptTokenCount", "toolUsePromptTokenCount")
        cached = min(read, sum_of("cachedContentTokenCount"))
        written = sum_of("candidatesTokenCount", "thoughtsTokenCount")
    else:
        read = sum_of("prompt_tokens", "input_tokens")
        cached = min(read, sum_of("cached_tokens"))
        written = sum_of("completion_tokens", "output_tokens")
    return Tokens(input=read - cached, output=written, cache_read=cached)


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
