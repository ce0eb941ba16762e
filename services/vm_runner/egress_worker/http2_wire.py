"""What an HTTP/2 relay writes to both ends: whole frames, under one owner of each direction.

Credit that has to be put right, since bytes are swallowed or added here:

- DATA of a refused stream is not passed on: the guest gets its credit for the connection back.
- DATA for a stream that was given up is not passed on: likewise the host.
- DATA that is added here (a refusal's body) takes from the guest's window what the host does not
  know of; as much of the guest's later credit for the connection is kept from the host.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from hpack import Encoder

from services.vm_runner.egress_worker import frames
from services.vm_runner.egress_worker.frames import ErrorCode, Flag, Kind, Setting
from services.vm_runner.egress_worker.http2_requests import answer_headers
from services.vm_runner.egress_worker.http2_streams import TABLE_MOST, Stream, Streams
from services.vm_runner.egress_worker.judge import Denied
from services.vm_runner.egress_worker.run_state import RunState
from services.vm_runner.egress_worker.sides import Side

DATA_FLAGS: Final = Flag.END_STREAM | Flag.PADDED
_TABLE_OWN: Final = 4096
_WINDOW: Final = 65535


class Wire:
    """The writing ends of one connection, and what both ways share.

    Attributes:
        run: bounds and masks.
        streams: those that are open.
        host_is_there: set when the host's first settings have been passed on; nothing of our own
            is written to the guest before.
    """

    def __init__(self, guest: Side, host: Side, run: RunState) -> None:
        self.run = run
        self.streams = Streams()
        self.host_is_there = asyncio.Event()
        self.guest_encoder = Encoder()
        self.host_encoder = Encoder()
        self.guest_window = _WINDOW
        self.guest_stream_window = _WINDOW
        self.owed = 0
        self._guest = guest
        self._host = host
        self._guest_lock = asyncio.Lock()
        self._host_lock = asyncio.Lock()

    async def refuse(self, stream: Stream, denied: Denied) -> None:
        """Answers a request in the host's place; its stream is over."""
        await self.host_is_there.wait()
        if self.streams.by_guest(stream.number) is not stream:
            return  # the guest gave it up meanwhile
        self.streams.drop(stream)
        if stream.metered is not None:
            await stream.metered.end(whole=False)
        if stream.metered is not None and stream.metered.began:
            await self.to_guest(frames.encode_reset(stream.number, ErrorCode.CANCEL))
            return

        def make() -> bytes:
            size = len(denied.body)
            fits = min(self.guest_window, self.guest_stream_window) >= size
            out = frames.encode_headers(
                stream.number,
                self.guest_encoder.encode(answer_headers(denied)),
                ends=not fits,
            )
            if fits:
                self.guest_window -= size
                self.owed += size
                out += frames.encode(Kind.DATA, Flag.END_STREAM, stream.number, denied.body)
            if not stream.guest_ended:
                out += frames.encode_reset(stream.number, ErrorCode.NO_ERROR)
            return out

        await self.to_guest(make)

    async def credit_guest(self, size: int) -> None:
        """Gives the guest back what swallowed DATA took from the connection's window."""
        self.streams.uncredited += size
        if self.streams.uncredited:
            await self.host_is_there.wait()
            await self.to_guest(b"")

    async def to_guest(self, data: "bytes | Callable[[], bytes]") -> None:
        """Writes frames, or those that are made when it is their turn (tables have an order)."""
        async with self._guest_lock:
            written = data if isinstance(data, bytes) else data()
            if self.host_is_there.is_set() and self.streams.uncredited:
                written += frames.encode_window_update(0, self.streams.uncredited)
                self.streams.uncredited = 0
            await self._guest.write(written)

    async def to_host(self, data: "bytes | Callable[[], bytes]") -> None:
        """Writes frames likewise."""
        async with self._host_lock:
            await self._host.write(data if isinstance(data, bytes) else data())

    async def credit_host(self, size: int) -> None:
        """Gives the host back what swallowed DATA took from the connection's window."""
        if size:
            await self.to_host(frames.encode_window_update(0, size))


def limit_tables(settings: dict[int, int], encoder: Encoder) -> None:
    """Limits an encoder to the table that settings permit, and bounds what is passed on."""
    table = settings.get(Setting.HEADER_TABLE_SIZE)
    if table is not None:
        encoder.header_table_size = min(table, _TABLE_OWN)
        settings[Setting.HEADER_TABLE_SIZE] = min(table, TABLE_MOST)


def cap(settings: dict[int, int], key: Setting, most: int) -> None:
    """Bounds a setting that is passed on."""
    if key in settings:
        settings[key] = min(settings[key], most)
