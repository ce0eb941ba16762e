"""What replies say they cost, read as they pass."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vm_runner.egress_worker.usage_reader import APIS, Tokens, UsageReader

JSON_HEADERS = [(b"Content-Type", b"application/json; charset=utf-8")]
EVENTS = [(b"content-type", b"text/event-stream")]

ANTHROPIC = {
    "model": "claude-x",
    "usage": {
        "input_tokens": 12,
        "output_tokens": 34,
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 6,
    },
}
ANTHROPIC_STREAM = (
    b'event: message_start\ndata: {"type":"message_start","message":{"model":"claude-x",'
    b'"usage":{"input_tokens":12,"output_tokens":1,"cache_read_input_tokens":5,'
    b'"cache_creation_input_tokens":6}}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"hi"}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":34}}\n\n'
)
OPENAI_STREAM = (
    b'data: {"model":"gpt-x","choices":[{"delta":{"content":"a"}}],"usage":null}\r\n\r\n'
    b'data: {"model":"gpt-x","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":34,'
    b'"prompt_tokens_details":{"cached_tokens":5}}}\r\n\r\ndata: [DONE]\r\n\r\n'
)


def read(api: str, headers: list[tuple[bytes, bytes]], body: bytes, size: int = 7) -> Tokens:
    reader = UsageReader(api, 200, headers, is_chunked=False)
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
    return reader.end()


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("api", "headers", "body", "expected"),
    [
        ("anthropic", JSON_HEADERS, json.dumps(ANTHROPIC).encode(),
         Tokens("claude-x", 12, 34, 5, 6, True)),
        ("anthropic", EVENTS, ANTHROPIC_STREAM, Tokens("claude-x", 12, 34, 5, 6, True)),
        ("openai", EVENTS, OPENAI_STREAM, Tokens("gpt-x", 12, 34, 5, 0, True)),
        ("openai", JSON_HEADERS,
         (b'{"model":"gpt-x","usage":{"input_tokens":12,"output_tokens":34,'
         b'"input_tokens_details":{"cached_tokens":5}}}'), Tokens("gpt-x", 12, 34, 5, 0, True)),
        ("openai", EVENTS,
         (b'data: {"type":"response.completed","response":{"model":"gpt-x","usage":'
         b'{"input_tokens":12,"output_tokens":34}}}'), Tokens("gpt-x", 12, 34, 0, 0, True)),
        ("google", JSON_HEADERS,
         (b'{"modelVersion":"gemini","usageMetadata":{"promptTokenCount":12,'
         b'"candidatesTokenCount":34}}'), Tokens("gemini", 12, 34, 0, 0, True)),
    ],
)  # fmt: skip
def test_usage_is_read_where_each_api_puts_it(
    api: str, headers: list[tuple[bytes, bytes]], body: bytes, expected: Tokens, size: int
) -> None:
    assert read(api, headers, body, size) == expected


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, [*JSON_HEADERS, (b"Content-Encoding", b"gzip")], json.dumps(ANTHROPIC).encode()),
        (500, JSON_HEADERS, json.dumps(ANTHROPIC).encode()),
        (200, [(b"content-type", b"text/html")], json.dumps(ANTHROPIC).encode()),
        (200, JSON_HEADERS, b'{"usage": {"input_tokens": true}}'),
        (200, JSON_HEADERS, b'{"usage": {"input_tokens": "12"}}'),
        (200, JSON_HEADERS, b'{"usage": [1]}'),
        (200, JSON_HEADERS, b"[" * 100_000),
        (200, JSON_HEADERS, b'{"usage": {"input_tokens": 1'),
    ],
)
def test_what_is_not_said_is_not_guessed(
    status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    reader = UsageReader("anthropic", status, headers, is_chunked=False)
    reader.feed(body)

    assert not reader.end().exact


def test_chunks_are_taken_apart_however_they_are_cut() -> None:
    body = b"".join(
        b"%x;a=b\r\n%s\r\n" % (len(one), one)
        for one in (ANTHROPIC_STREAM[:50], ANTHROPIC_STREAM[50:51], ANTHROPIC_STREAM[51:])
    )
    body += b"0\r\nX-T: usage\r\n\r\n"
    for size in (1, 3, 1000):
        reader = UsageReader("anthropic", 200, EVENTS, is_chunked=True)
        for at in range(0, len(body), size):
            reader.feed(body[at : at + size])
        assert reader.end() == Tokens("claude-x", 12, 34, 5, 6, True)


def test_a_count_is_bounded_and_no_memory_grows_with_a_stream() -> None:
    reader = UsageReader("anthropic", 200, EVENTS, is_chunked=False)
    for _ in range(64):
        reader.feed(b"data: usage" + b"x" * 65536)
    assert len(reader._buffer) <= 512 * 1024

    tokens = read("anthropic", JSON_HEADERS, b'{"usage": {"output_tokens": %d}}' % 10**30)
    assert tokens.output_tokens == 1 << 40


@given(st.sampled_from(sorted(APIS)), st.binary(max_size=200), st.booleans(), st.booleans())
def test_any_reply_is_read_or_not(api: str, body: bytes, events: bool, is_chunked: bool) -> None:
    reader = UsageReader(api, 200, EVENTS if events else JSON_HEADERS, is_chunked=is_chunked)
    reader.feed(body)

    tokens = reader.end()
    assert tokens.input_tokens >= 0
