"""Frames of HTTP/2 (RFC 9113, section 4), cut from bytes and made. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_MOST: Final = 64 * 1024
"""Payload of the longest frame that is passed: the limit that each end sees of the other."""

FRAME_LEAST: Final = 16384
_HEADER: Final = 9
_WINDOW_MOST: Final = 0x7FFF_FFFF


class FrameInvalid(Exception):
    """Bytes are no frame of HTTP/2, or one where it may not be."""


class Kind(IntEnum):
    """Types of frames."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class Flag(IntEnum):
    """Flags of frames; ACK is END_STREAM's bit."""

    END_STREAM = 0x1
    ACK = 0x1
    END_HEADERS = 0x4
    PADDED = 0x8
    PRIORITY = 0x20


class Setting(IntEnum):
    """Settings that are looked at."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8


class ErrorCode(IntEnum):
    """Why a stream or connection ended."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    REFUSED_STREAM = 7
    CANCEL = 8
    ENHANCE_YOUR_CALM = 11


@dataclass(frozen=True, slots=True)
class FrameHead:
    """A frame, and its bytes as they came.

    Attributes:
        kind: its type, also one that is not known.
        flags: its flags.
        stream: its stream; 0 for the connection.
        payload: what it carries.
        raw: all of its bytes.
    """

    kind: int
    flags: int
    stream: int
    payload: bytes
    raw: bytes


class FrameReader:
    """Cuts bytes into frames; keeps at most one that is not complete."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[FrameHead]:
        """Yields the frames that bytes complete.

        Raises:
            FrameInvalid: a frame is longer than any that was agreed on.
        """
        self._buffer += data
        at = 0
        try:
            while len(self._buffer) - at >= _HEADER:
                length = int.from_bytes(self._buffer[at : at + 3], "big")
                if length > FRAME_MOST:
                    raise FrameInvalid("a frame that is too long")
                end = at + _HEADER + length
                if len(self._buffer) < end:
                    break
                raw = bytes(self._buffer[at:end])
                at = end
                yield FrameHead(
                    kind=raw[3],
                    flags=raw[4],
                    stream=int.from_bytes(raw[5:9], "big") & _WINDOW_MOST,
                    payload=raw[_HEADER:],
                    raw=raw,
                )
        finally:
            del self._buffer[:at]


def encode(kind: Kind, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Returns the bytes of a frame."""
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


def encode_headers(
    stream: int, block: bytes, *, ends: bool, priority: bytes = b"", most: int = FRAME_LEAST
) -> bytes:
    """Returns the frames of a header block: HEADERS, and CONTINUATION where it is long."""
    flags = Flag.END_STREAM if ends else 0
    if priority:
        flags |= Flag.PRIORITY
    payload = priority + block
    pieces = [payload[at : at + most] for at in range(0, len(payload), most)] or [b""]
    frames = []
    for number, piece in enumerate(pieces, start=1):
        last = Flag.END_HEADERS if number == len(pieces) else 0
        kind = Kind.HEADERS if number == 1 else Kind.CONTINUATION
        frames.append(encode(kind, (flags if number == 1 else 0) | last, stream, piece))
    return b"".join(frames)


def unpadded(frame: FrameHead) -> bytes:
    """Returns a payload without its padding.

    Raises:
        FrameInvalid: the padding is longer than the payload.
    """
    if not frame.flags & Flag.PADDED:
        return frame.payload
    if not frame.payload or frame.payload[0] >= len(frame.payload):
        raise FrameInvalid("padding that is longer than its frame")
    return frame.payload[1 : len(frame.payload) - frame.payload[0]]


def read_settings(frame: FrameHead) -> dict[int, int]:
    """Returns the settings of a frame, the last of each.

    Raises:
        FrameInvalid: they are malformed.
    """
    if len(frame.payload) % 6 or frame.stream or (frame.flags & Flag.ACK and frame.payload):
        raise FrameInvalid("malformed settings")
    return {
        int.from_bytes(frame.payload[at : at + 2], "big"): int.from_bytes(
            frame.payload[at + 2 : at + 6], "big"
        )
        for at in range(0, len(frame.payload), 6)
    }


def encode_settings(settings: dict[int, int]) -> bytes:
    """Returns a frame of settings."""
    return encode(
        Kind.SETTINGS,
        0,
        0,
        b"".join(
            key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in settings.items()
        ),
    )


def is_greeting(data: bytes) -> bool:
    """Returns whether bytes begin like a server of HTTP/2: with its settings."""
    return data[3:9] == bytes((Kind.SETTINGS, 0, 0, 0, 0, 0))


def read_window_update(frame: FrameHead) -> int:
    """Returns by how much a window grows.

    Raises:
        FrameInvalid: it says nothing, or nothing possible.
    """
    if len(frame.payload) != 4:  # noqa: PLR2004 - a number of 32 bits
        raise FrameInvalid("a window update is not valid")
    size = int.from_bytes(frame.payload, "big") & _WINDOW_MOST
    if not size:
        raise FrameInvalid("a window update is not valid")
    return size


def encode_window_update(stream: int, size: int) -> bytes:
    """Returns a frame that credits a window."""
    return encode(Kind.WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def encode_reset(stream: int, code: ErrorCode) -> bytes:
    """Returns a frame that gives a stream up."""
    return encode(Kind.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def encode_goaway(last_stream: int, code: ErrorCode) -> bytes:
    """Returns a frame that ends a connection."""
    return encode(Kind.GOAWAY, 0, 0, last_stream.to_bytes(4, "big") + code.to_bytes(4, "big"))
