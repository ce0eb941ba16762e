"""What a guest's program sends over HTTP/2: requests are judged, everything else passes."""

import asyncio
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
from services.vm_runner.egress_worker.heads import HeadInvalid
from services.vm_runner.egress_worker.http2_requests import (
    Block,
    asked_of,
    encoded_request,
    read_block,
)
from services.vm_runner.egress_worker.http2_streams import Action, HeaderBlocks, Stream
from services.vm_runner.egress_worker.http2_wire import DATA_FLAGS, Wire, cap, limit_tables
from services.vm_runner.egress_worker.judge import Asked, Denied, Judge, Permitted
from services.vm_runner.egress_worker.meters import Meter
from services.vm_runner.egress_worker.reports import Reason
from services.vm_runner.egress_worker.sides import Side
from services.vm_runner.egress_worker.traces import find_in_head

_HELD_MOST: Final = 1 << 20


class FromGuest:
    """The way from the guest.

    Args:
        guest: the program's side.
        wire: what is written to.
        judge: of the connection.
        meter: counts requests.
        tasks: where requests are judged.
        in_clear: whether the connection is without TLS.
    """

    def __init__(
        self,
        guest: Side,
        wire: Wire,
        judge: Judge,
        *,
        meter: Meter,
        tasks: asyncio.TaskGroup,
        in_clear: bool,
    ) -> None:
        self._guest = guest
        self._wire = wire
        self._judge = judge
        self._meter = meter
        self._tasks = tasks
        self._in_clear = in_clear
        self._blocks = HeaderBlocks(wire.run.limits.header_bytes)

    async def read(self) -> None:
        """Reads until the guest ends.

        Raises:
            Ended: it broke the protocol.
            SideLost: a side broke off.
        """
        preface = b""
        while len(preface) < len(frames.PREFACE):
            data = await self._guest.read()
            if not data:
                raise Ended(Reason.MALFORMED, "HTTP/2 that ends in its preface")
            preface += data
        if not preface.startswith(frames.PREFACE):
            raise Ended(Reason.MALFORMED, "HTTP/2 without its preface")
        await self._wire.to_host(frames.PREFACE)
        reader = FrameReader()
        data = preface[len(frames.PREFACE) :]
        try:
            while True:
                for frame in reader.feed(data):
                    await self._guest_frame(frame)
                data = await self._guest.read()
                if not data:
                    return
        except (FrameInvalid, HPACKError, HeadInvalid) as error:
            await self._wire.to_guest(frames.encode_goaway(0, ErrorCode.PROTOCOL_ERROR))
            raise Ended(Reason.MALFORMED, f"no HTTP/2: {error}") from error

    async def _guest_frame(self, frame: FrameHead) -> None:
        block = self._blocks.take(frame)
        if block is not None:
            await self._guest_headers(block.stream, block.headers, ends=block.ends)
            return
        match frame.kind:
            case Kind.HEADERS | Kind.CONTINUATION | Kind.PRIORITY:
                return  # the rest of the block is to come; priorities are of the past (5.3)
            case Kind.DATA:
                await self._guest_data(frame)
            case Kind.SETTINGS:
                await self._wire.to_host(self._guest_settings(frame))
            case Kind.WINDOW_UPDATE:
                await self._guest_credit(frame)
            case Kind.RST_STREAM:
                await self._guest_reset(frame)
            case Kind.PING:
                await self._wire.to_host(frame.raw)
            case Kind.GOAWAY:
                await self._wire.to_host(
                    frames.encode(Kind.GOAWAY, 0, 0, bytes(4) + frame.payload[4:8])
                )
            case Kind.PUSH_PROMISE:
                raise FrameInvalid("a push by a client")

    async def _guest_headers(self, number: int, decoded: list[HeaderTuple], *, ends: bool) -> None:
        stream = self._wire.streams.by_guest(number)
        if stream is not None:
            await self._guest_trailers(stream, decoded, ends=ends)
            return
        if number <= self._wire.streams.highest:
            return  # of a stream that is over
        if not number % 2:
            raise FrameInvalid("a stream of a client with an even number")
        stream = self._wire.streams.begin(number)
        stream.guest_ended = stream.ends_with_head = ends
        if len(self._wire.streams) > self._wire.run.limits.streams:
            self._wire.streams.drop(stream)
            await self._wire.to_guest(frames.encode_reset(number, ErrorCode.REFUSED_STREAM))
            return
        try:
            block = read_block(decoded)
            asked = asked_of(block, in_clear=self._in_clear)
        except HeadInvalid as error:
            denied = self._judge.deny(Reason.MALFORMED, f"no request: {error}", status=400)
            await self._wire.refuse(stream, denied)
            return
        stream.judging = self._tasks.create_task(self._judge_request(stream, block, asked))

    async def _judge_request(self, stream: Stream, block: Block, asked: Asked) -> None:
        judged = await self._judge.judge(asked)
        if isinstance(judged, Denied):
            await self._wire.refuse(stream, judged)
            return
        stream.asked = asked
        stream.scanner = judged.scanner
        stream.metered = self._meter.request(
            asked.method.decode("latin-1"),
            judged.path,
            allowance=judged.allowance,
            socket=asked.is_socket,
        )
        if stream.is_over:
            await stream.metered.end(whole=False, taken=False)
            return
        await self._begin_at_host(stream, block, judged)
        while stream.waiting and not stream.is_over:
            act = stream.waiting.popleft()
            await act()
        stream.judging = None

    async def _begin_at_host(self, stream: Stream, block: Block, permitted: Permitted) -> None:
        headers = encoded_request(block, permitted)

        def make() -> bytes:
            if stream.is_over:
                return b""
            self._wire.streams.name_at_host(stream)
            encoded = self._wire.host_encoder.encode(headers)
            return frames.encode_headers(stream.host_number, encoded, ends=stream.ends_with_head)

        await self._wire.to_host(make)

    async def _guest_trailers(
        self, stream: Stream, decoded: list[HeaderTuple], *, ends: bool
    ) -> None:
        if not ends or stream.guest_ended:
            raise FrameInvalid("headers in the middle of a request")
        stream.guest_ended = True
        block = read_block(decoded, trailers=True)

        async def pass_on() -> None:
            traces = stream.scanner.traces if stream.scanner else ()
            credential = find_in_head(traces, b"", block.headers)
            if credential is not None and stream.asked is not None:
                await self._give_up(stream, credential, stream.asked)
                return

            def make() -> bytes:
                encoded = self._wire.host_encoder.encode(list(block.headers))
                return frames.encode_headers(stream.host_number, encoded, ends=True)

            await self._wire.to_host(make)
            self._wire.streams.drop_if_over(stream)

        await self._or_wait(stream, pass_on, 0)

    async def _guest_data(self, frame: FrameHead) -> None:
        stream = self._wire.streams.by_guest(frame.stream)
        if stream is None or stream.guest_ended:
            await self._wire.credit_guest(len(frame.payload))
            return
        stream.guest_ended = bool(frame.flags & Flag.END_STREAM)
        data = frames.unpadded(frame)

        async def pass_on() -> None:
            credential = stream.scanner.feed(data) if stream.scanner else None
            if credential is not None and stream.asked is not None:
                await self._wire.credit_guest(len(frame.payload))
                await self._give_up(stream, credential, stream.asked)
                return
            if stream.metered is not None:
                stream.metered.count_sent(len(data))
            await self._wire.to_host(
                frames.encode(
                    Kind.DATA, frame.flags & DATA_FLAGS, stream.host_number, frame.payload
                )
            )
            self._wire.streams.drop_if_over(stream)

        await self._or_wait(stream, pass_on, len(frame.payload))

    async def _or_wait(self, stream: Stream, act: Action, size: int) -> None:
        """Acts for a stream, or has it wait until its request is judged."""
        if stream.judging is None:
            await act()
            return
        if self._wire.streams.held + size > _HELD_MOST:
            raise FrameInvalid("more than may wait for requests to be judged")
        self._wire.streams.hold(stream, act, size)

    async def _guest_credit(self, frame: FrameHead) -> None:
        size = frames.read_window_update(frame)
        if not frame.stream:
            self._wire.guest_window += size
            kept = min(self._wire.owed, size)
            self._wire.owed -= kept
            if size > kept:
                await self._wire.to_host(frames.encode_window_update(0, size - kept))
            return
        stream = self._wire.streams.by_guest(frame.stream)
        if stream is None:
            return

        async def pass_on() -> None:
            await self._wire.to_host(frames.encode_window_update(stream.host_number, size))

        await self._or_wait(stream, pass_on, 0)

    async def _guest_reset(self, frame: FrameHead) -> None:
        stream = self._wire.streams.by_guest(frame.stream)
        if stream is None:
            return
        self._wire.streams.drop(stream)
        if stream.metered is not None:
            await stream.metered.end(whole=False)
        if stream.host_number:
            await self._wire.to_host(
                frames.encode(Kind.RST_STREAM, 0, stream.host_number, frame.payload[:4])
            )
        await self._wire.credit_guest(0)

    def _guest_settings(self, frame: FrameHead) -> bytes:
        settings = frames.read_settings(frame)
        if frame.flags & Flag.ACK:
            return frame.raw
        limit_tables(settings, self._wire.guest_encoder)
        self._wire.guest_stream_window = settings.get(
            Setting.INITIAL_WINDOW_SIZE, self._wire.guest_stream_window
        )
        cap(settings, Setting.MAX_FRAME_SIZE, frames.FRAME_MOST)
        settings[Setting.ENABLE_PUSH] = 0  # a push answers a request that was not judged
        return frames.encode_settings(settings)

    async def _give_up(self, stream: Stream, credential: str, asked: Asked) -> None:
        """Refuses a request of which the host has got a part already."""
        denied = await self._judge.found_in_body(asked, credential)
        number = stream.host_number
        await self._wire.refuse(stream, denied)
        await self._wire.to_host(frames.encode_reset(number, ErrorCode.CANCEL))
