"""Frames and fields of the guest channel, as `docs/guest-protocol.md` specifies them.

Pure: bytes in, values out. Everything that a guest sent is hostile; what breaks the format raises
`GuestViolation` and ends that guest's channel, nothing else.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from services.core.errors import VmFailed

PROTOCOL_VERSION = 1
FRAME_MAX = 32768
PAYLOAD_MAX = FRAME_MAX - 21
MESSAGE_MAX = 1 << 20
NONCE_BYTES = 16
SYNC_MARK = b"\xf1lns-guest-sync\x1f"

_MAGIC = 0xC5
_TRAILER = b"\x5c"
_HEADER = struct.Struct("<BBHIIQ")
_FIELD = struct.Struct("<HI")
_FIELDS_MAX = 64
_NUMBER_BYTES = 8


class GuestViolation(VmFailed):
    """The guest broke the protocol; its run is ended."""


class FrameType(IntEnum):
    """What a frame is about. H: sent by the host, G: by the guest."""

    HELLO = 1
    WELCOME = 2
    READY = 3
    CONFIGURE = 4
    CONFIGURED = 5
    EXEC = 6
    EXEC_STATE = 7
    EXEC_FORGET = 8
    SIGNAL = 9
    RESIZE = 10
    CONNECT = 11
    CONNECTED = 12
    DATA = 16
    ACK = 17
    RESET = 18
    STATS = 20
    NOTICE = 21
    SHUTDOWN = 22
    GOODBYE = 23
    OPEN = 24
    REFUSE = 25
    WANTED = 26
    CLOCK = 27
    PREPARE = 28
    PREPARED = 29
    CLEAR = 30
    CLEARED = 31
    FREEZE = 32
    FROZEN = 33
    THAW = 34
    RENEW = 35
    RENEWED = 36


class FrameFlag(IntFlag):
    """Flags of a frame."""

    NONE = 0
    MORE = 1
    FIN = 2
    REFUSED = 4


class Tag(IntEnum):
    """Names of the fields of control messages."""

    VERSION = 1
    TIME_NS = 2
    ENTROPY = 3
    AGENT = 4
    BOOT_NS = 5
    CONFIGURED = 6
    HIGHEST_ID = 7
    ERRNO = 8
    STAGE = 9
    TEXT = 10
    HOSTNAME = 20
    METADATA_DISK = 21
    PACK_DISK = 22
    NO_ACL = 23
    WRITABLE_DISK = 24
    READ_ONLY_PATH = 25
    FILE = 26
    VOLUME = 27
    SHM_BYTES = 28
    PIDS_MAX = 29
    MEMORY_MAX = 30
    STEERED = 31
    BIND = 32
    EGRESS = 33
    AUTHORITY = 34
    DIRECTORY = 36
    ARG = 40
    ENV = 41
    USER = 42
    WORKDIR = 43
    TTY = 44
    MAIN = 45
    STDIO_STREAM = 46
    STDERR_STREAM = 47
    ROWS = 48
    COLUMNS = 49
    RLIMIT = 50
    UMASK = 51
    OOM_SCORE = 52
    GROUP = 53
    BUILTIN = 54
    STATE = 60
    PID = 61
    EXIT_CODE = 62
    SIGNAL = 63
    OOM_KILLED = 64
    PORT = 65
    ADDRESS = 66
    TICKET = 67
    NAME = 68
    MEMORY_BYTES = 70
    PIDS = 71
    CPU_NS = 72
    DISK_BYTES = 73
    OOM_KILLS = 74


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One frame.

    Attributes:
        type: what it is about.
        id: of the stream or process it is about; 0 for the machine.
        offset: position in the stream of DATA's first byte, or up to which ACK acknowledges.
        flags: more about it.
        payload: at most `PAYLOAD_MAX` bytes.
    """

    type: FrameType
    id: int = 0
    offset: int = 0
    flags: FrameFlag = FrameFlag.NONE
    payload: bytes = b""


def encode_frame(frame: Frame) -> bytes:
    """Returns the bytes of a frame."""
    header = _HEADER.pack(
        _MAGIC, frame.type, frame.flags, len(frame.payload), frame.id, frame.offset
    )
    return b"".join((header, frame.payload, _TRAILER))


def encode_message(frame_type: FrameType, *, message_id: int, fields: bytes) -> bytes:
    """Returns the frames of a control message of at most `MESSAGE_MAX` bytes."""
    if len(fields) > MESSAGE_MAX:
        raise ValueError("message too long")
    pieces = [fields[at : at + PAYLOAD_MAX] for at in range(0, len(fields), PAYLOAD_MAX)] or [b""]
    return b"".join(
        encode_frame(
            Frame(
                type=frame_type,
                id=message_id,
                payload=piece,
                flags=FrameFlag.NONE if number == len(pieces) else FrameFlag.MORE,
            )
        )
        for number, piece in enumerate(pieces, start=1)
    )


class FrameDecoder:
    """Cuts a guest's bytes into frames, beginning behind the mark that answers our nonce.

    Holds at most one frame (or mark) that is not complete yet.
    """

    def __init__(self, nonce: bytes) -> None:
        if len(nonce) != NONCE_BYTES:
            raise ValueError("nonce of the wrong size")
        self._mark = SYNC_MARK + nonce
        self._in_step = False
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields the frames that `data` completes.

        Raises:
            GuestViolation: bytes behind the mark are no frame.
        """
        buffer = self._rest + data if self._rest else data
        at = 0
        if not self._in_step:
            found = buffer.find(self._mark)
            if found < 0:
                self._rest = buffer[-(len(self._mark) - 1) :]
                return
            self._in_step = True
            at = found + len(self._mark)
        try:
            while len(buffer) - at >= _HEADER.size:
                total = self._frame_size(buffer, at)
                if len(buffer) - at < total:
                    break
                frame = self._frame(buffer, at, total)
                at += total
                yield frame
        finally:
            self._rest = buffer[at:]

    @staticmethod
    def _frame_size(buffer: bytes, at: int) -> int:
        magic, _type, _flags, length, _id, _offset = _HEADER.unpack_from(buffer, at)
        if magic != _MAGIC or length > PAYLOAD_MAX:
            raise GuestViolation("the guest sent something that is no frame")
        return _HEADER.size + int(length) + 1

    @staticmethod
    def _frame(buffer: bytes, at: int, total: int) -> Frame:
        _magic, frame_type, flags, length, frame_id, offset = _HEADER.unpack_from(buffer, at)
        start = at + _HEADER.size
        if buffer[at + total - 1 : at + total] != _TRAILER:
            raise GuestViolation("the guest sent a frame without its trailer")
        try:
            known_type = FrameType(frame_type)
        except ValueError:
            raise GuestViolation(f"the guest sent a frame of unknown type {frame_type}") from None
        return Frame(
            type=known_type,
            id=frame_id,
            offset=offset,
            flags=FrameFlag(flags & 7),
            payload=buffer[start : start + length],
        )


def encode_fields(fields: Iterable[tuple[Tag, bytes | str | int]]) -> bytes:
    """Returns the bytes of a control message; numbers take 8 bytes, text is UTF-8.

    Raises:
        ValueError: a text holds a NUL, which the guest would take for its end.
    """
    pieces = []
    for tag, value in fields:
        if isinstance(value, str):
            if "\0" in value:
                raise ValueError(f"NUL in a text of field {tag.name}")
            # Names in a file system are bytes; the command line brings them as surrogates.
            data = value.encode("utf-8", "surrogateescape")
        elif isinstance(value, int):
            data = (value & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(_NUMBER_BYTES, "little")
        else:
            data = value
        pieces += [_FIELD.pack(tag, len(data)), data]
    return b"".join(pieces)


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a guest's message; unknown tags are kept and ignored."""

    entries: tuple[tuple[int, bytes], ...]

    @classmethod
    def parse(cls, data: bytes) -> "Fields":
        """Reads a message.

        Raises:
            GuestViolation: the bytes are no fields, or too many.
        """
        entries: list[tuple[int, bytes]] = []
        at = 0
        while at < len(data):
            if len(data) - at < _FIELD.size or len(entries) == _FIELDS_MAX:
                raise GuestViolation("the guest sent a malformed message")
            tag, length = _FIELD.unpack_from(data, at)
            at += _FIELD.size
            if length > len(data) - at:
                raise GuestViolation("the guest sent a malformed message")
            entries.append((tag, data[at : at + length]))
            at += length
        return cls(tuple(entries))

    def numbers(self, tag: Tag) -> tuple[int, ...]:
        """Returns every number of that name; other sizes than 8 bytes are a violation."""
        values = [value for name, value in self.entries if name == tag]
        if any(len(value) != _NUMBER_BYTES for value in values):
            raise GuestViolation("the guest sent a malformed number")
        return tuple(int.from_bytes(value, "little") for value in values)

    def octets(self, tag: Tag) -> bytes:
        """Returns the first value of that name as it is; empty if it is missing."""
        return next((value for name, value in self.entries if name == tag), b"")

    def number(self, tag: Tag, default: int = 0) -> int:
        """Returns the first number of that name."""
        return next(iter(self.numbers(tag)), default)

    def text(self, tag: Tag) -> str:
        """Returns the first text of that name, with what is not printable replaced."""
        value = next((value for name, value in self.entries if name == tag), b"")
        text = value[:1024].decode("utf-8", "replace")
        return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
