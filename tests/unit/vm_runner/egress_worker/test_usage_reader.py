"""What replies say they cost, read as they pass."""

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.budgets.metering import Tokens
from services.vm_runner.egress_worker.codings import ask_for_readable
from services.vm_runner.egress_worker.usage_reader import APIS, EVENT_MOST, Reported, UsageReader

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


def said(model: str, **counts: int) -> Reported:
    return Reported(model=model, tokens=Tokens(**counts), exact=True)


CLAUDE = said("claude-x", input=12, output=34, cache_read=5, cache_write=6)
GPT = said("gpt-x", input=7, output=34, cache_read=5)


def read(api: str, headers: list[tuple[bytes, bytes]], body: bytes, size: int = 7) -> Reported:
    reader = UsageReader(api, 200, headers, is_chunked=False)
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
    return reader.end()


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    ("api", "headers", "body", "expected"),
    [
        ("anthropic", JSON_HEADERS, json.dumps(ANTHROPIC).encode(),
         CLAUDE),
        ("anthropic", EVENTS, ANTHROPIC_STREAM, CLAUDE),
        ("openai", EVENTS, OPENAI_STREAM, GPT),
        ("openai", JSON_HEADERS,
         (b'{"model":"gpt-x","usage":{"input_tokens":12,"output_tokens":34,'
         b'"input_tokens_details":{"cached_tokens":5}}}'), GPT),
        ("openai", EVENTS,
         (b'data: {"type":"response.completed","response":{"model":"gpt-x","usage":'
         b'{"input_tokens":12,"output_tokens":34}}}'), said("gpt-x", input=12, output=34)),
        ("google", JSON_HEADERS,
         (b'{"modelVersion":"gemini","usageMetadata":{"promptTokenCount":12,'
         b'"candidatesTokenCount":34}}'), said("gemini", input=12, output=34)),
        ("google", JSON_HEADERS,
         (b'{"modelVersion":"gemini","usageMetadata":{"promptTokenCount":12,"thoughtsTokenCount":4,'
         b'"candidatesTokenCount":30,"cachedContentTokenCount":2,"toolUsePromptTokenCount":1}}'),
         said("gemini", input=11, output=34, cache_read=2)),
        ("anthropic", JSON_HEADERS,
         (b'{"model":"claude-x","usage":{"input_tokens":1,"output_tokens":2,'
         b'"cache_creation_input_tokens":9,"cache_creation":{"ephemeral_1h_input_tokens":4}}}'),
         said("claude-x", input=1, output=2, cache_write=5, cache_write_long=4)),
    ],
)  # fmt: skip
def test_usage_is_read_where_each_api_puts_it(
    api: str, headers: list[tuple[bytes, bytes]], body: bytes, expected: Reported, size: int
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
        assert reader.end() == CLAUDE


def test_a_count_is_bounded_and_no_memory_grows_with_a_stream() -> None:
    reader = UsageReader("anthropic", 200, EVENTS, is_chunked=False)
    for _ in range(64):
        reader.feed(b"data: usage" + b"x" * 65536)
    assert len(reader._buffer) <= EVENT_MOST

    reported = read("anthropic", JSON_HEADERS, b'{"usage": {"output_tokens": %d}}' % 10**30)
    assert reported.tokens.output == 1 << 40


def test_a_stream_with_an_event_that_is_too_long_is_not_taken_for_exact() -> None:
    reader = UsageReader("anthropic", 200, EVENTS, is_chunked=False)
    reader.feed(ANTHROPIC_STREAM.partition(b"event: content")[0])
    reader.feed(b"data: " + b"x" * (EVENT_MOST + 1))
    reader.feed(b"\n\n" + ANTHROPIC_STREAM.rpartition(b"event:")[2])

    assert not reader.end().exact


@pytest.mark.parametrize("size", [1, 13, 10_000])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "GZIP"])
def test_a_coded_reply_is_read_from_a_decoded_copy(coding: str, size: int) -> None:
    packed = (gzip if "z" in coding.lower() else zlib).compress(ANTHROPIC_STREAM)
    headers = [*EVENTS, (b"Content-Encoding", coding.encode())]

    assert read("anthropic", headers, packed, size).tokens.output == 34


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(b" " * (70 << 20))])
def test_what_cannot_be_decoded_is_not_taken_for_exact(body: bytes) -> None:
    headers = [*JSON_HEADERS, (b"content-encoding", b"gzip")]

    assert not read("anthropic", headers, body, 4096).exact


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (b"gzip, deflate, br, zstd", b"gzip, deflate"),
        (b"br;q=1.0, gzip;q=0.5", b"gzip;q=0.5"),
        (b"br", b"identity"),
        (b"identity", b"identity"),
        (b"*", b"identity"),
    ],
)
def test_a_reply_that_has_to_be_read_is_asked_for_in_readable_codings(
    asked: bytes, sent: bytes
) -> None:
    headers = [(b"Accept-Encoding", asked), (b"X", b"br")]

    assert ask_for_readable(headers) == ((b"Accept-Encoding", sent), (b"X", b"br"))


@given(st.sampled_from(sorted(APIS)), st.binary(max_size=200), st.booleans(), st.booleans())
def test_any_reply_is_read_or_not(api: str, body: bytes, events: bool, is_chunked: bool) -> None:
    reader = UsageReader(api, 200, EVENTS if events else JSON_HEADERS, is_chunked=is_chunked)
    reader.feed(body)

    assert reader.end().tokens.total >= 0
