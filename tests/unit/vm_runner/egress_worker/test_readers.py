"""Readers of hostile bytes: they read what is meant, however it is cut, or refuse it."""

import ssl

import pytest
from hpack.exceptions import HPACKError
from hypothesis import given
from hypothesis import strategies as st

from services.vm_runner.egress_worker import frames
from services.vm_runner.egress_worker.beginnings import Kind, look
from services.vm_runner.egress_worker.bodies import BodyReader
from services.vm_runner.egress_worker.client_hello import ClientHello, NotTls, read_client_hello
from services.vm_runner.egress_worker.frames import FrameInvalid, FrameReader
from services.vm_runner.egress_worker.heads import (
    Framing,
    HeadInvalid,
    parse_reply,
    parse_request,
    split_head,
)
from services.vm_runner.egress_worker.http2_streams import HeaderBlocks
from tests.support.outcomes import passes_or

MOST = 64 * 1024


def hello(name: str = "", protocols: tuple[str, ...] = ()) -> bytes:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(list(protocols))
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name or None)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


HELLO = hello("api.example.com", ("h2", "http/1.1"))


def records(message: bytes, size: int) -> bytes:
    """Returns the message of a hello in records of some size."""
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(one).to_bytes(2, "big") + one for one in pieces)


def test_a_client_hello_names_the_server_and_the_protocols() -> None:
    assert read_client_hello(HELLO) == ClientHello("api.example.com", (b"h2", b"http/1.1"))
    assert read_client_hello(hello()) == ClientHello()


@given(st.integers(1, 600))
def test_a_client_hello_may_come_in_records_of_any_size(size: int) -> None:
    assert read_client_hello(records(HELLO[5:], size)) == read_client_hello(HELLO)


@given(st.integers(0, len(HELLO) - 1))
def test_a_part_of_a_client_hello_waits_for_the_rest(size: int) -> None:
    assert read_client_hello(HELLO[:size]) is None


@given(st.data())
def test_a_damaged_client_hello_is_read_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(HELLO)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with passes_or(NotTls):
        read_client_hello(bytes(damaged))


@given(st.binary(max_size=200))
def test_any_bytes_behind_a_record_header_are_read_or_refused(content: bytes) -> None:
    with passes_or(NotTls):
        read_client_hello(b"\x16\x03\x01" + content)


@pytest.mark.parametrize(
    "data",
    [b"\x16\x03\x01\x00\x00", b"\x16\x03\x01\xff\xff", b"\x17\x03\x01\x00\x01",
     b"\x16\x02\x01\x00\x01", b"\x16\x03\x01\x00\x01\x02", b"\x16\x03\x01\x00\x04\x01\xff\xff\xff"],
)  # fmt: skip
def test_what_cannot_become_a_client_hello_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(NotTls):
        read_client_hello(data)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (HELLO, Kind.TLS),
        (b"GET / HTTP/1.1\r\n", Kind.HTTP_1),
        (b"get / HTTP/1.0\n", Kind.HTTP_1),
        (b"\r\nM-SEARCH * HTTP/1.1\r\n", Kind.HTTP_1),
        (b"GET http://a/ HTTP/1.1\r\nHost", Kind.HTTP_1),
        (frames.PREFACE, Kind.HTTP_2),
        (b"PRI * HTTP/2.0\r\n\r\nSX", Kind.HTTP_1),
        (b"SSH-2.0-OpenSSH\r\n", Kind.OTHER),
        (b"EHLO a\r\n", Kind.OTHER),
        (b"GET /\r\n", Kind.OTHER),
        (b"\x00", Kind.OTHER),
        (b"\x16\x03\x01\x00\x00", Kind.OTHER),
        (b"\x05\x01\x00", Kind.OTHER),  # [19]
        (b"G", None),
        (b"PRI * HTTP", None),
        (b"\x16", None),
        (b"GET /" + b"a" * 20000, Kind.OTHER),
    ],
)
def test_what_a_connection_begins_as(data: bytes, kind: Kind | None) -> None:
    found = look(data)

    assert (found.kind if found else None) is kind


@given(st.binary(min_size=1, max_size=100))
def test_a_beginning_is_decided_alike_however_it_is_cut(data: bytes) -> None:
    decided = [found.kind for size in range(1, len(data) + 1) if (found := look(data[:size]))]

    assert len(set(decided[:1])) <= 1
    assert look(data) is None or decided


_requests = st.builds(
    lambda method, target, headers: b"\r\n".join(
        [f"{method} {target} HTTP/1.1".encode(), b"Host: a", *headers, b"", b""]
    ),
    st.sampled_from(["GET", "POST", "X-Y"]),
    st.sampled_from(["/", "/a?b", "*", "http://a/"]),
    st.lists(st.sampled_from([b"A: b", b"a:", b"Content-Length: 3", b"X: \xff y"]), max_size=3),
)


@given(_requests, st.binary(max_size=20))
def test_a_request_is_read_and_written_as_it_came(head: bytes, rest: bytes) -> None:
    size = split_head(head + rest, MOST)
    assert size == len(head)
    try:
        request = parse_request(head, most=MOST)
    except HeadInvalid:
        assert head.count(b"Content-Length") > 1
        return
    assert request.encode() == head
    assert request.changed(request.headers) is request
    longer = request.changed((*request.headers, (b"Z", b"1")))
    assert parse_request(longer.encode(), most=MOST).headers[-1] == (b"Z", b"1")


def test_a_head_may_come_in_pieces_cut_anywhere() -> None:
    head = b"HTTP/1.1 200 OK\r\nServer: a\r\nX: y\r\n\r\n"

    assert [split_head(head[:size], MOST) for size in range(len(head))] == [None] * len(head)
    assert split_head(head, MOST) == len(head)


@given(st.data())
def test_a_damaged_head_is_read_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(
        b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"
    )
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        size = split_head(damaged, MOST)
        if size is not None:
            head = bytes(damaged[:size])
            assert b"\n" not in head.replace(b"\r\n", b"")
            parse_request(head, most=MOST)
    except HeadInvalid:
        return


@given(st.binary(max_size=60), st.sampled_from([b"GET", b"HEAD"]))
def test_any_bytes_are_a_reply_or_none(data: bytes, method: bytes) -> None:
    with passes_or(HeadInvalid):
        parse_reply(b"HTTP/1.1 200 OK\r\n" + data + b"\r\n\r\n", method=method, most=MOST)


@pytest.mark.parametrize(
    ("status", "method", "headers", "framing"),
    [
        (b"200 OK", b"GET", b"", Framing.CLOSE),
        (b"200 OK", b"GET", b"Content-Length: 0\r\n", Framing.NONE),
        (b"200 OK", b"GET", b"Content-Length: 7\r\n", Framing.LENGTH),
        (b"200 OK", b"HEAD", b"Content-Length: 7\r\n", Framing.NONE),
        (b"204 No Content", b"GET", b"", Framing.NONE),
        (b"304 Not Modified", b"GET", b"Content-Length: 7\r\n", Framing.NONE),
        (b"200 OK", b"GET", b"Transfer-Encoding: chunked\r\n", Framing.CHUNKED),
        (b"100 Continue", b"POST", b"", Framing.NONE),
    ],
)
def test_the_body_of_a_reply_is_delimited_as_it_says(
    status: bytes, method: bytes, headers: bytes, framing: Framing
) -> None:
    head = parse_reply(
        b"HTTP/1.1 " + status + b"\r\n" + headers + b"\r\n", method=method, most=MOST
    )

    assert head.framing is framing


_chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=5)


@given(_chunks, st.booleans(), st.integers(1, 17), st.binary(max_size=10))
def test_a_chunked_body_ends_where_it_ends_however_it_is_cut(
    chunks: list[bytes], has_trailer: bool, size: int, rest: bytes
) -> None:
    body = b"".join(b"%x;a=b\r\n%s\r\n" % (len(one), one) for one in chunks)
    body += b"0\r\n" + (b"X-T: 1\r\n" if has_trailer else b"") + b"\r\n"
    head = parse_request(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", most=MOST
    )
    reader, taken, whole = BodyReader(head), 0, body + rest
    while not reader.done:
        taken += reader.feed(whole[taken : taken + size])

    assert taken == len(body)


@given(st.binary(max_size=60))
def test_any_bytes_are_chunks_or_none(data: bytes) -> None:
    head = parse_request(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", most=MOST
    )
    try:
        assert BodyReader(head).feed(data) <= len(data)
    except HeadInvalid:
        return


_frames = st.lists(
    st.tuples(
        st.sampled_from(frames.Kind), st.integers(0, 255), st.integers(0, 7), st.binary(max_size=30)
    ),
    max_size=6,
)


@given(_frames, st.integers(1, 25))
def test_frames_are_cut_alike_however_they_come(
    listed: list[tuple[frames.Kind, int, int, bytes]], size: int
) -> None:
    data = b"".join(frames.encode(*one) for one in listed)
    reader = FrameReader()
    found = [
        frame for at in range(0, len(data), size) for frame in reader.feed(data[at : at + size])
    ]

    assert [(one.kind, one.flags, one.stream, one.payload) for one in found] == listed
    assert b"".join(one.raw for one in found) == data


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_and_blocks_or_an_offence(data: bytes) -> None:
    blocks = HeaderBlocks(4096)
    with passes_or(FrameInvalid, HPACKError):
        for frame in FrameReader().feed(data):
            blocks.take(frame)
            frames.unpadded(frame)
            frames.read_settings(frame)
            frames.read_window_update(frame)


@given(st.binary(max_size=50_000), st.booleans())
def test_a_block_of_any_length_is_framed_and_joined(block: bytes, ends: bool) -> None:
    data = frames.encode_headers(5, block, ends=ends)
    found = list(FrameReader().feed(data))

    assert b"".join(one.payload for one in found) == block
    assert [bool(one.flags & frames.Flag.END_HEADERS) for one in found][-1]
    assert bool(found[0].flags & frames.Flag.END_STREAM) is ends
    assert all(len(one.payload) <= 16384 for one in found)
