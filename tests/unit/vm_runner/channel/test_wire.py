import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vm_runner.channel.wire import (
    FRAME_MAX,
    MESSAGE_MAX,
    NONCE_BYTES,
    PAYLOAD_MAX,
    SYNC_MARK,
    Fields,
    Frame,
    FrameDecoder,
    FrameFlag,
    FrameType,
    GuestViolation,
    Tag,
    encode_fields,
    encode_frame,
    encode_message,
)
from tests.support.outcomes import passes_or

NONCE = bytes(range(NONCE_BYTES))
MARK = SYNC_MARK + NONCE

frames = st.builds(
    Frame,
    type=st.sampled_from(FrameType),
    id=st.integers(0, 2**32 - 1),
    offset=st.integers(0, 2**64 - 1),
    flags=st.sampled_from([FrameFlag.NONE, FrameFlag.MORE, FrameFlag.FIN, FrameFlag.REFUSED]),
    payload=st.binary(max_size=300),
)


def decode(data: bytes) -> list[Frame]:
    return list(FrameDecoder(NONCE).feed(data))


@given(st.lists(frames, max_size=8), st.lists(st.integers(0, 4000), max_size=6))
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    sent: list[Frame], cuts: list[int]
) -> None:
    data = MARK + b"".join(encode_frame(frame) for frame in sent)
    decoder = FrameDecoder(NONCE)
    received: list[Frame] = []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        received += decoder.feed(data[start:end])

    assert received == sent


@given(st.binary(max_size=400))
def test_whatever_came_before_the_mark_is_skipped(before: bytes) -> None:
    frame = Frame(type=FrameType.READY)

    assert decode(before + MARK + encode_frame(frame)) == [frame]


def test_a_mark_with_another_nonce_is_not_ours() -> None:
    other = SYNC_MARK + bytes(NONCE_BYTES)

    assert decode(other + encode_frame(Frame(type=FrameType.READY))) == []


@given(st.binary(max_size=2000))
def test_any_bytes_behind_the_mark_are_frames_or_a_violation(data: bytes) -> None:
    try:
        received = decode(MARK + data)
    except GuestViolation:
        return

    assert (
        b"".join(map(encode_frame, received)) == data[: sum(map(len, map(encode_frame, received)))]
    )


@pytest.mark.parametrize(
    "spoiled",
    [
        pytest.param(b"\x00", id="zero"),
        pytest.param(encode_frame(Frame(type=FrameType.READY))[:-1] + b"\x00", id="no trailer"),
        pytest.param(b"\xc5\x63" + bytes(19), id="unknown type"),
        pytest.param(
            b"\xc5\x10\x00\x00" + (PAYLOAD_MAX + 1).to_bytes(4, "little") + bytes(12),
            id="too long",
        ),
    ],
)
def test_what_is_no_frame_is_a_violation(spoiled: bytes) -> None:
    with pytest.raises(GuestViolation):
        decode(MARK + spoiled + bytes(64))


def test_a_decoder_holds_no_more_than_a_frame() -> None:
    decoder = FrameDecoder(NONCE)
    for _ in range(100):
        assert list(decoder.feed(bytes(10_000))) == []

    assert len(decoder._rest) < len(MARK)


@pytest.mark.parametrize("size", [0, 1, PAYLOAD_MAX, PAYLOAD_MAX + 1, 5 * PAYLOAD_MAX])
def test_a_long_message_is_several_frames(size: int) -> None:
    message = encode_message(FrameType.EXEC, message_id=7, fields=b"x" * size)
    parts = decode(MARK + message)

    assert b"".join(part.payload for part in parts) == b"x" * size
    assert [bool(part.flags & FrameFlag.MORE) for part in parts] == [True] * (len(parts) - 1) + [
        False
    ]
    assert all(len(encode_frame(part)) <= FRAME_MAX for part in parts)


def test_a_message_has_a_largest_size() -> None:
    with pytest.raises(ValueError, match="too long"):
        encode_message(FrameType.EXEC, message_id=1, fields=bytes(MESSAGE_MAX + 1))


def test_fields_come_out_as_they_went_in() -> None:
    fields = Fields.parse(
        encode_fields([(Tag.PID, 4711), (Tag.STAGE, "exec"), (Tag.BOOT_NS, 1), (Tag.BOOT_NS, 2)])
    )

    assert fields.number(Tag.PID) == 4711
    assert fields.text(Tag.STAGE) == "exec"
    assert fields.numbers(Tag.BOOT_NS) == (1, 2)
    assert fields.number(Tag.SIGNAL, 9) == 9
    assert fields.text(Tag.TEXT) == ""


@given(st.binary(max_size=300))
def test_any_bytes_are_fields_or_a_violation(data: bytes) -> None:
    with passes_or(GuestViolation):
        fields = Fields.parse(data)
        for tag in Tag:
            fields.text(tag)
            fields.numbers(tag)


def test_a_guest_cannot_put_control_characters_on_a_terminal() -> None:
    fields = Fields.parse(encode_fields([(Tag.TEXT, "red\x1b[31m\r\n")]))

    assert fields.text(Tag.TEXT) == "red\ufffd[31m\ufffd\ufffd"


def test_too_many_fields_are_a_violation() -> None:
    with pytest.raises(GuestViolation):
        Fields.parse(encode_fields([(Tag.PID, 1)] * 65))


def test_a_text_cannot_hide_a_nul() -> None:
    with pytest.raises(ValueError, match="NUL"):
        encode_fields([(Tag.ARG, "ls\0-la")])


def test_a_name_that_is_no_utf8_goes_through() -> None:
    assert b"caf\xe9" in encode_fields([(Tag.ARG, b"caf\xe9".decode("utf-8", "surrogateescape"))])
