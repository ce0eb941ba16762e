"""What a host sends over HTTP/2: it passes, in the guest's numbers of streams, without secrets."""

from typing import Final

from hpack import HeaderTuple
from hpack.exceptions import HPACKError

from services.vm_runner.egress_worker import frames
from services.vm_runner.egress_worker.endings import Ended
from services.vm_runner.egress_worker.frames import (
    ErrorCode,
    Flag,
    FrameHead,
    FrameInvalid,
    FrameReader,
    Kind,
    Setting,
)
from services.vm_runner.egress_worker.heads import Header, HeadInvalid
from services.vm_runner.egress_worker.http2_streams import HeaderBlocks, Stream
from services.vm_runner.egress_worker.http2_wire import DATA_FLAGS, Wire, cap, limit_tables
from services.vm_runner.egress_worker.reports import Reason
from services.vm_runner.egress_worker.sides import Side

_NUMBER_MOST: Final = 0x7FFF_FFFF


class FromHost:
    """The way from the host.

    Args:
        host: its side.
        wire: what is written to.
    """

    def __init__(self, host: Side, wire: Wire) -> None:
        self._host = host
        self._wire = wire
        self._blocks = HeaderBlocks(wire.run.limits.header_bytes)

    async def read(self) -> None:
        """Reads until the host ends.

        Raises:
            Ended: it broke the protocol.
            SideLost: a side broke off.
        """
        reader = FrameReader()
        try:
            while data := await self._host.read():
                for frame in reader.feed(data):
                    await self._host_frame(frame)
        except (FrameInvalid, HPACKError, HeadInvalid) as error:
            await self._wire.to_guest(frames.encode_goaway(0, ErrorCode.INTERNAL_ERROR))
            raise Ended(Reason.UPSTREAM_PROTOCOL, f"no HTTP/2: {error}") from error

    async def _host_frame(self, frame: FrameHead) -> None:
        block = self._blocks.take(frame)
        if block is not None:
            await self._host_headers(block.stream, block.headers, ends=block.ends)
            return
        match frame.kind:
            case Kind.DATA:
                await self._host_data(frame)
            case Kind.SETTINGS:
                await self._wire.to_guest(self._host_settings(frame))
                self._wire.host_is_there.set()
            case Kind.WINDOW_UPDATE:
                await self._host_credit(frame)
            case Kind.RST_STREAM:
                await self._host_reset(frame)
            case Kind.PING:
                await self._wire.to_guest(frame.raw)
            case Kind.GOAWAY:
                await self._host_goes(frame)
            case Kind.PUSH_PROMISE:
                raise FrameInvalid("a push that was not permitted")

    async def _host_headers(self, number: int, decoded: list[HeaderTuple], *, ends: bool) -> None:
        stream = self._wire.streams.by_host(number)
        if stream is None:
            return
        headers = tuple((bytes(one[0]), bytes(one[1])) for one in decoded)
        status = next((value for name, value in headers if name == b":status"), b"")
        metered = stream.metered
        if metered and not metered.began and status.isdigit() and not status.startswith(b"1"):
            metered.begin(int(status), headers)
        await self._reply(stream, self._wire.run.mask.apply(headers), ends=ends)
        await self._end_reply(stream, ends=ends)

    async def _reply(self, stream: Stream, headers: tuple[Header, ...], *, ends: bool) -> None:
        def make() -> bytes:
            encoded = self._wire.guest_encoder.encode(list(headers))
            return frames.encode_headers(stream.number, encoded, ends=ends)

        await self._wire.to_guest(make)

    async def _host_data(self, frame: FrameHead) -> None:
        stream = self._wire.streams.by_host(frame.stream)
        if stream is None:
            await self._wire.credit_host(len(frame.payload))
            return
        self._wire.guest_window -= len(frame.payload)
        if stream.metered is not None:
            stream.metered.feed(frames.unpadded(frame))
        flags = frame.flags & DATA_FLAGS
        await self._wire.to_guest(frames.encode(Kind.DATA, flags, stream.number, frame.payload))
        await self._end_reply(stream, ends=bool(flags & Flag.END_STREAM))

    async def _end_reply(self, stream: Stream, *, ends: bool) -> None:
        if ends:
            stream.host_ended = True
            if stream.metered is not None:
                await stream.metered.end(whole=True)
            self._wire.streams.drop_if_over(stream)

    async def _host_credit(self, frame: FrameHead) -> None:
        size = frames.read_window_update(frame)
        if not frame.stream:
            await self._wire.to_guest(frame.raw)
        elif (stream := self._wire.streams.by_host(frame.stream)) is not None:
            await self._wire.to_guest(frames.encode_window_update(stream.number, size))

    async def _host_reset(self, frame: FrameHead) -> None:
        stream = self._wire.streams.by_host(frame.stream)
        if stream is not None:
            self._wire.streams.drop(stream)
            if stream.metered is not None:
                await stream.metered.end(whole=False)
            await self._wire.to_guest(
                frames.encode(Kind.RST_STREAM, 0, stream.number, frame.payload[:4])
            )

    async def _host_goes(self, frame: FrameHead) -> None:
        """Passes on that the host takes no more streams, in the guest's numbers."""
        last = int.from_bytes(frame.payload[:4], "big") & _NUMBER_MOST
        if last != _NUMBER_MOST:
            taken, untaken = self._wire.streams.split_at_host(last)
            last = taken
            for stream in untaken:
                if stream.metered is not None:
                    await stream.metered.end(whole=False, taken=False)
                reset = frames.encode_reset(stream.number, ErrorCode.REFUSED_STREAM)
                await self._wire.to_guest(reset)
        payload = last.to_bytes(4, "big") + frame.payload[4:]
        await self._wire.to_guest(frames.encode(Kind.GOAWAY, 0, 0, payload))

    def _host_settings(self, frame: FrameHead) -> bytes:
        settings = frames.read_settings(frame)
        if frame.flags & Flag.ACK:
            return frame.raw
        limit_tables(settings, self._wire.host_encoder)
        limits = self._wire.run.limits
        if not self._wire.host_is_there.is_set():
            settings.setdefault(Setting.MAX_CONCURRENT_STREAMS, limits.streams)
            settings.setdefault(Setting.MAX_HEADER_LIST_SIZE, limits.header_bytes)
        cap(settings, Setting.MAX_CONCURRENT_STREAMS, limits.streams)
        cap(settings, Setting.MAX_HEADER_LIST_SIZE, limits.header_bytes)
        cap(settings, Setting.MAX_FRAME_SIZE, frames.FRAME_MOST)
        return frames.encode_settings(settings)
