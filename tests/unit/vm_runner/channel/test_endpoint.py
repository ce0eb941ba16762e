"""The host's end of the channel against a guest that is written out by hand here."""

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest

from services.vm_runner.channel.endpoint import GuestChannel
from services.vm_runner.channel.events import (
    Connected,
    Goodbye,
    GuestEvent,
    GuestStats,
    Notice,
    Opening,
    ProcessPhase,
    ProcessState,
    Ready,
    StreamData,
    StreamRefused,
    StreamReset,
    StreamWritable,
    Welcome,
)
from services.vm_runner.channel.requests import Hello
from services.vm_runner.channel.streams import WINDOW_BYTES
from services.vm_runner.channel.tickets import TICKETS_MAX
from services.vm_runner.channel.wire import (
    FRAME_MAX,
    SYNC_MARK,
    Frame,
    FrameDecoder,
    FrameFlag,
    FrameType,
    GuestViolation,
    Tag,
    encode_fields,
    encode_frame,
)

NONCE = b"n" * 16
LIMIT = struct.Struct("<Q")


class Guest:
    """A guest's side of one connection, frame by frame."""

    def __init__(self, *, ready: bool = True, streams: dict[int, int] | None = None) -> None:
        self.channel = GuestChannel(nonce=NONCE, hello=Hello(time_ns=1, entropy=b"e" * 64))
        first = self.channel.take()
        assert first[: FRAME_MAX + 32] == bytes(FRAME_MAX) + SYNC_MARK + NONCE
        self._decoder = FrameDecoder(NONCE)
        assert [f.type for f in self._decoder.feed(first[FRAME_MAX:])] == [FrameType.HELLO]
        self.raw(SYNC_MARK + NONCE)
        if ready:
            self.welcome()
            for stream_id, received in (streams or {}).items():
                self.ack(stream_id, received, received + WINDOW_BYTES)
            self.send(FrameType.READY)

    def welcome(self, version: int = 1) -> list[GuestEvent]:
        return self.send(
            FrameType.WELCOME, payload=encode_fields([(Tag.VERSION, version), (Tag.AGENT, "1")])
        )

    def raw(self, data: bytes) -> list[GuestEvent]:
        return list(self.channel.receive(data))

    def send(
        self,
        kind: FrameType,
        stream_id: int = 0,
        *,
        offset: int = 0,
        payload: bytes = b"",
        flags: FrameFlag = FrameFlag.NONE,
    ) -> list[GuestEvent]:
        return self.raw(
            encode_frame(
                Frame(type=kind, id=stream_id, offset=offset, payload=payload, flags=flags)
            )
        )

    def data(
        self, stream_id: int, offset: int, data: bytes, *, fin: bool = False
    ) -> list[GuestEvent]:
        flags = FrameFlag.FIN if fin else FrameFlag.NONE
        return self.send(FrameType.DATA, stream_id, offset=offset, payload=data, flags=flags)

    def ack(
        self, stream_id: int, offset: int, limit: int, *, refused: bool = False
    ) -> list[GuestEvent]:
        flags = FrameFlag.REFUSED if refused else FrameFlag.NONE
        payload = LIMIT.pack(limit)
        return self.send(FrameType.ACK, stream_id, offset=offset, payload=payload, flags=flags)

    def taken(self) -> list[Frame]:
        """Everything that is due to the guest."""
        data = b""
        while piece := self.channel.take():
            data += piece
        return list(self._decoder.feed(data))

    def opened(self, stream_id: int = 5, *, received: int = 0) -> "Guest":
        self.channel.open_stream(stream_id, received=received)
        self.taken()
        return self


def test_nothing_but_the_hello_is_sent_before_the_guest_is_ready() -> None:
    guest = Guest(ready=False)
    guest.channel.open_stream(5)
    guest.channel.write(5, b"early")

    assert guest.taken() == []


def test_the_welcome_says_who_the_guest_is() -> None:
    guest = Guest(ready=False)
    payload = encode_fields(
        [(Tag.VERSION, 1), (Tag.AGENT, "7"), (Tag.HIGHEST_ID, 40), (Tag.BOOT_NS, 5)]
    )

    assert guest.send(FrameType.WELCOME, payload=payload) == [
        Welcome(version=1, agent="7", configured=False, highest_id=40, boot_ns=(5,))
    ]
    assert guest.send(FrameType.READY) == [Ready()]


def test_another_version_of_the_protocol_is_refused() -> None:
    with pytest.raises(GuestViolation, match="version 2"):
        Guest(ready=False).welcome(version=2)


def test_a_stream_is_granted_a_window_when_it_is_opened() -> None:
    guest = Guest()
    guest.channel.open_stream(5)

    (ack,) = guest.taken()
    assert (ack.type, ack.id, ack.offset) == (FrameType.ACK, 5, 0)
    assert LIMIT.unpack(ack.payload) == (WINDOW_BYTES,)


def test_each_byte_comes_once_and_in_order() -> None:
    guest = Guest().opened()

    assert guest.data(5, 0, b"hello") == [StreamData(stream_id=5, data=b"hello", ended=False)]
    assert guest.data(5, 3, b"lo wor") == [StreamData(stream_id=5, data=b" wor", ended=False)]
    assert guest.data(5, 0, b"hel") == []
    assert guest.data(5, 9, b"ld", fin=True) == [StreamData(stream_id=5, data=b"ld", ended=True)]
    assert guest.data(5, 9, b"ld", fin=True) == []


@pytest.mark.parametrize(
    ("offset", "size"), [(1, 1), (0, WINDOW_BYTES + 1), (2**63, 1)], ids=["gap", "credit", "far"]
)
def test_bytes_out_of_place_are_a_violation(offset: int, size: int) -> None:
    guest = Guest().opened()
    with pytest.raises(GuestViolation):
        for at in range(0, size, 30_000):
            guest.data(5, offset + at, b"x" * min(30_000, size - at))


def test_bytes_behind_the_end_are_a_violation() -> None:
    guest = Guest().opened()
    guest.data(5, 0, b"a", fin=True)

    with pytest.raises(GuestViolation):
        guest.data(5, 1, b"b")


def test_a_guest_that_is_not_acknowledged_gets_no_more_credit() -> None:
    guest = Guest().opened()
    for at in range(0, WINDOW_BYTES, 16384):
        guest.data(5, at, bytes(16384))

    assert guest.taken() == []
    guest.channel.acknowledge(5, WINDOW_BYTES)
    (ack,) = guest.taken()
    assert (ack.offset, LIMIT.unpack(ack.payload)) == (WINDOW_BYTES, (2 * WINDOW_BYTES,))


def test_small_acknowledgements_are_saved_up() -> None:
    guest = Guest().opened()
    guest.data(5, 0, b"abc")
    guest.channel.acknowledge(5, 3)

    assert guest.taken() == []


def test_the_end_is_acknowledged_like_a_byte_and_the_stream_forgotten() -> None:
    guest = Guest().opened()
    guest.ack(5, 0, 0, refused=True)
    guest.data(5, 0, b"abc", fin=True)
    guest.channel.acknowledge(5, 3, ended=True)

    (ack,) = guest.taken()
    assert ack.offset == 4
    assert guest.data(5, 3, b"", fin=True) == []
    assert not guest.channel.is_open(5)


def test_output_keeps_to_the_guest_s_credit() -> None:
    guest = Guest().opened()
    guest.channel.write(5, b"0123456789")

    assert guest.taken() == []
    assert guest.ack(5, 0, 4) == [StreamWritable(stream_id=5)]
    assert [(f.offset, f.payload) for f in guest.taken()] == [(0, b"0123")]
    guest.ack(5, 4, 100)
    assert [(f.offset, f.payload) for f in guest.taken()] == [(4, b"456789")]


def test_the_end_of_output_follows_the_last_byte() -> None:
    guest = Guest().opened()
    guest.ack(5, 0, 100)
    guest.channel.write(5, b"bye")
    guest.channel.finish(5)

    (frame,) = guest.taken()
    assert (frame.payload, frame.flags) == (b"bye", FrameFlag.FIN)
    assert guest.channel.write(5, b"more") == 0


def test_a_window_s_worth_of_output_is_kept_and_no_more() -> None:
    guest = Guest().opened()

    assert guest.channel.write(5, bytes(2 * WINDOW_BYTES)) == WINDOW_BYTES
    assert guest.channel.room(5) == 0
    guest.ack(5, 0, WINDOW_BYTES)
    guest.taken()
    guest.ack(5, 1000, 2 * WINDOW_BYTES)
    assert guest.channel.room(5) == 1000


def test_a_full_stream_does_not_keep_the_others_waiting() -> None:
    guest = Guest().opened(5).opened(6)
    guest.ack(5, 0, 0)
    guest.ack(6, 0, WINDOW_BYTES)
    guest.channel.write(5, bytes(WINDOW_BYTES))
    guest.channel.write(6, b"through")

    assert [(f.id, f.payload) for f in guest.taken()] == [(6, b"through")]


def test_streams_take_turns() -> None:
    guest = Guest().opened(5).opened(6)
    for stream_id in (5, 6):
        guest.ack(stream_id, 0, WINDOW_BYTES)
        guest.channel.write(stream_id, bytes(40_000))

    assert [f.id for f in guest.taken()] == [5, 6, 5, 6, 5, 6]


def test_refused_output_is_dropped() -> None:
    guest = Guest().opened()
    guest.channel.write(5, b"unwanted")

    assert guest.ack(5, 0, 100, refused=True) == [StreamRefused(stream_id=5)]
    assert guest.taken() == []
    assert guest.channel.write(5, b"more") == 0
    assert not guest.channel.is_open(5)


@pytest.mark.parametrize("offset", [1, 2**64 - 1])
def test_an_acknowledgement_of_what_was_not_sent_is_a_violation(offset: int) -> None:
    guest = Guest().opened()
    with pytest.raises(GuestViolation):
        guest.ack(5, offset, 100)


def test_a_reset_ends_a_stream_without_a_trace() -> None:
    guest = Guest().opened()

    assert guest.send(FrameType.RESET, 5) == [StreamReset(stream_id=5)]
    assert guest.send(FrameType.RESET, 5) == []
    assert guest.data(5, 0, b"late") == []


def test_a_new_host_goes_on_where_the_old_one_stood() -> None:
    guest = Guest(streams={1: 10, 2: 0})
    guest.channel.open_stream(1, received=1000)
    guest.channel.write(1, b"on")

    acks = guest.taken()
    assert (acks[0].type, acks[0].id, acks[0].offset) == (FrameType.ACK, 1, 1000)
    assert (acks[1].type, acks[1].offset, acks[1].payload) == (FrameType.DATA, 10, b"on")
    assert guest.data(1, 998, b"abcd") == [StreamData(stream_id=1, data=b"cd", ended=False)]


def test_streams_that_nobody_takes_over_are_given_up() -> None:
    guest = Guest(streams={1: 0, 7: 3, 8: 9})
    guest.channel.open_stream(1)
    guest.channel.reset_unclaimed()

    resets = [frame.id for frame in guest.taken() if frame.type is FrameType.RESET]
    assert resets == [7, 8]


def test_a_guest_cannot_claim_streams_without_end() -> None:
    guest = Guest(ready=False)
    guest.welcome()
    with pytest.raises(GuestViolation):
        for stream_id in range(10_000):
            guest.ack(stream_id, 0, 0)


def test_control_messages_are_events() -> None:
    guest = Guest()
    exited = encode_fields([(Tag.STATE, 2), (Tag.EXIT_CODE, 3)])

    assert guest.send(FrameType.EXEC_STATE, 9, payload=exited) == [
        ProcessState(process_id=9, phase=ProcessPhase.EXITED, exit_code=3)
    ]
    assert guest.send(FrameType.CONNECTED, 9, payload=encode_fields([(Tag.ERRNO, 111)])) == [
        Connected(stream_id=9, errno=111)
    ]
    assert guest.send(FrameType.STATS, payload=encode_fields([(Tag.PIDS, 3)])) == [
        GuestStats(memory_bytes=0, pids=3, cpu_ns=0, disk_bytes=0, oom_kills=0)
    ]
    assert guest.send(FrameType.NOTICE, payload=encode_fields([(Tag.TEXT, "hm")])) == [
        Notice(text="hm")
    ]
    assert guest.send(FrameType.GOODBYE) == [Goodbye()]


def test_a_count_that_a_record_has_no_room_for_is_cut() -> None:
    guest = Guest()
    kills = encode_fields([(Tag.STATE, 2), (Tag.OOM_KILLS, 2**64 - 1)])

    (state,) = guest.send(FrameType.EXEC_STATE, 9, payload=kills)
    (stats,) = guest.send(FrameType.STATS, payload=kills)
    assert isinstance(state, ProcessState)
    assert isinstance(stats, GuestStats)
    assert state.oom_kills == stats.oom_kills == 2**31 - 1


@pytest.mark.parametrize("kind", [FrameType.HELLO, FrameType.EXEC, FrameType.SHUTDOWN])
def test_what_only_a_host_says_is_a_violation(kind: FrameType) -> None:
    with pytest.raises(GuestViolation):
        Guest().send(kind)


def test_a_guest_that_does_not_greet_first_is_refused() -> None:
    with pytest.raises(GuestViolation, match="greet"):
        Guest(ready=False).send(FrameType.READY)


def test_a_guest_s_message_is_one_frame() -> None:
    with pytest.raises(GuestViolation, match="several"):
        Guest().send(FrameType.NOTICE, flags=FrameFlag.MORE)


@pytest.mark.parametrize("state", [0, 4, 255])
def test_an_unknown_process_state_is_a_violation(state: int) -> None:
    with pytest.raises(GuestViolation):
        Guest().send(FrameType.EXEC_STATE, 1, payload=encode_fields([(Tag.STATE, state)]))


def ask(
    guest: Guest, ticket: int, *, address: str = "::ffff:127.77.1.2", port: int = 80
) -> list[GuestEvent]:
    payload = encode_fields([(Tag.ADDRESS, IPv6Address(address).packed), (Tag.PORT, port)])
    return guest.send(FrameType.OPEN, ticket, payload=payload)


def test_a_connection_that_the_guest_asks_for_is_refused_once() -> None:
    guest = Guest()

    assert ask(guest, 7) == [Opening(ticket=7, address=IPv4Address("127.77.1.2"), port=80)]
    guest.channel.refuse(7)
    guest.channel.refuse(7)
    guest.channel.refuse(8)

    assert [(f.type, f.id) for f in guest.taken()] == [(FrameType.REFUSE, 7)]


@pytest.mark.parametrize(
    ("field", "address", "name"),
    [
        ((Tag.NAME, "example.com"), None, "example.com"),
        ((Tag.ADDRESS, IPv6Address("2001:db8::1").packed), IPv6Address("2001:db8::1"), ""),
        ((Tag.ADDRESS, IPv6Address("::ffff:1.2.3.4").packed), IPv4Address("1.2.3.4"), ""),
    ],
)
def test_a_guest_asks_for_names_and_for_addresses_of_both_families(
    field: tuple[Tag, str | bytes], address: IPv4Address | IPv6Address | None, name: str
) -> None:
    payload = encode_fields([field, (Tag.PORT, 443)])

    assert Guest().send(FrameType.OPEN, 1, payload=payload) == [
        Opening(ticket=1, address=address, name=name, port=443)
    ]


def test_a_connection_that_the_guest_asks_for_becomes_a_stream() -> None:
    guest = Guest()
    ask(guest, 7)
    guest.channel.open_stream(40, grant=False)
    guest.channel.admit(7, 40)
    (frame,) = guest.taken()

    assert (frame.type, frame.id) == (FrameType.CONNECT, 40)
    assert frame.payload == encode_fields([(Tag.TICKET, 7)])
    assert guest.send(FrameType.CONNECTED, 40) == [Connected(stream_id=40, errno=0)]


def test_a_guest_that_asks_before_it_is_ready_is_heard() -> None:
    guest = Guest(ready=False)
    guest.welcome()

    assert len(ask(guest, 1)) == 1


def test_a_ticket_counts_until_its_answer_is_on_its_way() -> None:
    guest = Guest()
    for ticket in range(1, TICKETS_MAX + 1):
        ask(guest, ticket)
        guest.channel.refuse(ticket)  # and the guest does not read
    with pytest.raises(GuestViolation):
        ask(guest, 1000)

    guest = Guest()
    for ticket in range(1, 3 * TICKETS_MAX):
        ask(guest, ticket)
        guest.channel.refuse(ticket)
        guest.taken()


@pytest.mark.parametrize(
    "payload",
    [
        encode_fields([(Tag.ADDRESS, 1 << 32), (Tag.PORT, 80)]),
        encode_fields([(Tag.ADDRESS, bytes(16)), (Tag.PORT, 1 << 16)]),
        encode_fields([(Tag.ADDRESS, bytes(17)), (Tag.PORT, 80)]),
        encode_fields([(Tag.NAME, "a" * 254), (Tag.PORT, 80)]),
        encode_fields([(Tag.NAME, "a\n"), (Tag.PORT, 80)]),
        encode_fields([(Tag.NAME, "\u00e4"), (Tag.PORT, 80)]),
        encode_fields([(Tag.PORT, 80)]),
        encode_fields([(Tag.ADDRESS, b"1"), (Tag.PORT, 80)]),
        b"\x01",
    ],
)
def test_a_connection_to_no_address_is_a_violation(payload: bytes) -> None:
    with pytest.raises(GuestViolation):
        Guest().send(FrameType.OPEN, 1, payload=payload)


@pytest.mark.parametrize("tickets", [(0,), (5, 5)])
def test_a_ticket_is_a_number_that_is_not_in_use(tickets: tuple[int, ...]) -> None:
    guest = Guest()
    with pytest.raises(GuestViolation):
        for ticket in tickets:
            ask(guest, ticket)


def test_what_a_guest_was_refused_is_no_request_of_its_own() -> None:
    with pytest.raises(GuestViolation):
        Guest().send(FrameType.REFUSE, 1)


def test_the_time_is_that_of_its_writing_and_goes_ahead_of_what_waits() -> None:
    now = iter([100, 200])
    channel = GuestChannel(
        nonce=NONCE, hello=Hello(time_ns=1, entropy=b"e" * 64), now_ns=lambda: next(now)
    )
    decoder = FrameDecoder(NONCE)
    channel.send_time()
    assert [f.type for f in decoder.feed(channel.take()[FRAME_MAX:])] == [FrameType.HELLO]

    welcome = encode_fields([(Tag.VERSION, 1), (Tag.AGENT, "2")])
    frame = encode_frame(Frame(type=FrameType.WELCOME, payload=welcome))
    list(channel.receive(SYNC_MARK + NONCE + frame))
    channel.request(FrameType.STATS)
    channel.send_time()
    channel.send_time()
    frames = list(decoder.feed(channel.take()))
    assert [f.type for f in frames] == [FrameType.CLOCK, FrameType.STATS]
    assert frames[0].payload == encode_fields([(Tag.TIME_NS, 100)])

    channel.send_time()
    (again,) = decoder.feed(channel.take())
    assert again.payload == encode_fields([(Tag.TIME_NS, 200)])
