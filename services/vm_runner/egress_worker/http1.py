"""HTTP/1 between a guest's program and its host: heads are judged, bodies pass as they are.

One request at a time: the next one is read when the reply to this one and its own body are through.
What is refused gets its answer here, and the connection lives on where the request had no body left
to come.
"""

import asyncio
import contextlib
from typing import Any, Final

from services.vm_runner.egress_worker.bodies import BodyReader
from services.vm_runner.egress_worker.endings import Ended
from services.vm_runner.egress_worker.heads import (
    Framing,
    HeadInvalid,
    ReplyHead,
    RequestHead,
    parse_reply,
    parse_request,
)
from services.vm_runner.egress_worker.http1_input import Input
from services.vm_runner.egress_worker.http1_requests import asked_of, encode_answer, passed_on
from services.vm_runner.egress_worker.judge import Asked, Denied, Judge, Permitted
from services.vm_runner.egress_worker.meters import Meter, Metered
from services.vm_runner.egress_worker.reports import Reason
from services.vm_runner.egress_worker.run_state import RunState
from services.vm_runner.egress_worker.sides import Side, SideLost, relay

_SWITCHING: Final = 101
_FINAL: Final = 200


class Http1:
    """One connection.

    Args:
        guest: the program's side, inside TLS if it uses TLS.
        host: the other side.
        judge: of the connection.
        run: bounds and masks.
        meter: reads what replies cost.
        in_clear: whether it is without TLS.
    """

    def __init__(
        self,
        guest: Side,
        host: Side,
        judge: Judge,
        *,
        run: RunState,
        meter: Meter,
        in_clear: bool,
    ) -> None:
        self._guest = guest
        self._host = host
        self._judge = judge
        self._run = run
        self._meter = meter
        self._in_clear = in_clear
        self._from_guest = Input(guest)
        self._from_host = Input(host)
        self._reply_began = False
        self._guest_left = False

    async def serve(self) -> None:
        """Carries requests and replies until one side ends.

        Raises:
            Ended: a request or a reply ended the connection.
            SideLost: a side broke off.
        """
        while await self._exchange():
            pass
        await self._guest.finish()
        await self._host.finish()

    async def _exchange(self) -> bool:
        """Carries one request and its reply; returns whether another may follow."""
        request = await self._next_request()
        if request is None:
            return False
        asked = asked_of(request, in_clear=self._in_clear)
        judged = await self._judge.judge(asked)
        if isinstance(judged, Denied):
            await self._answer(judged, closes=request.framing is not Framing.NONE)
            if request.framing is not Framing.NONE:
                await self._swallow()
                raise Ended(judged.reason)
            return request.keeps_alive
        return await self._carry(request, asked, judged)

    async def _next_request(self) -> RequestHead | None:
        most = self._run.limits.header_bytes
        try:
            head = await self._from_guest.head(most)
            if head is None:
                return None
            return parse_request(head, most=most)
        except HeadInvalid as error:
            denied = self._judge.deny(Reason.MALFORMED, f"no request: {error}", status=400)
            await self._answer(denied, closes=True)
            await self._swallow()
            raise Ended(Reason.MALFORMED, str(error)) from error

    async def _carry(self, request: RequestHead, asked: Asked, permitted: Permitted) -> bool:
        """Passes a request and its reply on; returns whether another may follow."""
        metered = self._meter.request(
            asked.method.decode("latin-1"),
            permitted.path,
            allowance=permitted.allowance,
            socket=False,
        )
        sending: asyncio.Future[Denied | None] | None = None
        replying: asyncio.Future[ReplyHead] | None = None
        try:
            await self._host.write(passed_on(request, permitted).encode())
            body = BodyReader(request)
            sending = asyncio.ensure_future(self._send_body(body, asked, permitted, metered))
            replying = asyncio.ensure_future(self._reply(request, metered))
            return await self._both(request, sending, replying)
        except (SideLost, Ended):
            if metered.is_read_out and replying and sending and sending.done():
                await self._read_out(replying)
            raise
        finally:
            await _cancelled(*(one for one in (sending, replying) if one is not None))
            await metered.end(whole=False)

    async def _both(
        self,
        request: RequestHead,
        sending: "asyncio.Future[Denied | None]",
        replying: "asyncio.Future[ReplyHead]",
    ) -> bool:
        """Waits for a request's body and its reply, and for a guest's program that leaves."""
        watching: asyncio.Future[None] | None = None
        try:
            while not replying.done():
                waited = [replying, watching or sending]
                await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if watching is not None and watching.done():
                    watching.result()  # the guest's program is gone
                elif watching is None and sending.done():
                    denied = sending.result()
                    if denied is not None:
                        await self._stop_reply(replying, denied)
                    watching = asyncio.ensure_future(self._from_guest.lost())
            reply = replying.result()
            if reply.status == _SWITCHING:
                await sending
                await _cancelled(*([watching] if watching else []))
                await self._switch()
                return False
            if not reply.keeps_alive or reply.framing is Framing.CLOSE:
                return False
            denied = await sending
            if denied is not None:
                raise Ended(denied.reason)
            return request.keeps_alive
        finally:
            await _cancelled(*([watching] if watching else []))

    async def _read_out(self, replying: "asyncio.Future[ReplyHead]") -> None:
        """Reads the rest of a reply that its client left: usage is reported at its end."""
        self._guest_left = True
        await asyncio.wait([replying], timeout=_READ_OUT_SECONDS)

    async def _to_guest(self, data: bytes, metered: Metered) -> None:
        if self._guest_left:
            return
        try:
            await self._guest.write(data)
        except SideLost:
            if not metered.is_read_out:
                raise
            self._guest_left = True

    async def _send_body(
        self, body: BodyReader, asked: Asked, permitted: Permitted, metered: Metered
    ) -> Denied | None:
        """Passes the body of a request on; returns the refusal where it holds a placeholder."""
        takes = True
        while not body.done:
            try:
                piece = await self._from_guest.piece(body)
            except SideLost as error:
                raise Ended(Reason.GUEST_LOST, str(error)) from error
            except HeadInvalid as error:
                raise Ended(Reason.MALFORMED, str(error)) from error
            credential = permitted.scanner.feed(piece)
            if credential is not None:
                return await self._judge.found_in_body(asked, credential)
            metered.count_sent(len(piece))
            try:
                if takes:
                    await self._host.write(piece)
            except SideLost:
                takes = False  # its reply may be on the way: that it takes no more
        return None

    async def _stop_reply(self, replying: "asyncio.Future[ReplyHead]", denied: Denied) -> None:
        """Answers in place of the host, which has not got all of a refused request."""
        began = self._reply_began
        replying.cancel()
        with contextlib.suppress(asyncio.CancelledError, SideLost, Ended):
            await replying
        if not began:
            await self._answer(denied, closes=True)
            await self._swallow()
        raise Ended(denied.reason)

    async def _reply(self, request: RequestHead, metered: Metered) -> ReplyHead:
        """Passes the reply on; returns its head when it is through, also with 101."""
        self._reply_began = False
        while True:
            head = await self._reply_head(request.method)
            self._reply_began = True
            masked = head.changed(self._run.mask.apply(head.headers))
            await self._to_guest(masked.encode(), metered)
            if head.status >= _FINAL or head.status == _SWITCHING:
                break
        if head.status == _SWITCHING:
            if not request.values(b"upgrade"):
                raise Ended(Reason.UPSTREAM_PROTOCOL, "it switches protocols without being asked")
            metered.switch()
            return head
        metered.begin(head.status, head.headers, is_chunked=head.framing is Framing.CHUNKED)
        body = BodyReader(head)
        try:
            while not body.done:
                piece = await self._from_host.piece(body)
                metered.feed(piece)
                if piece:
                    await self._to_guest(piece, metered)
        except HeadInvalid as error:
            raise Ended(Reason.UPSTREAM_PROTOCOL, str(error)) from error
        await metered.end(whole=True)
        return head

    async def _reply_head(self, method: bytes) -> ReplyHead:
        most = self._run.limits.header_bytes
        try:
            raw = await self._from_host.head(most)
            if raw is None:
                raise SideLost("it closed the connection without a reply")
            return parse_reply(raw, method=method, most=most)
        except HeadInvalid as error:
            text = f"its reply is not valid HTTP: {error}"
            if not self._reply_began:
                denied = self._judge.deny(Reason.UPSTREAM_PROTOCOL, text, status=502)
                await self._answer(denied, closes=True)
            raise Ended(Reason.UPSTREAM_PROTOCOL, text) from error

    async def _switch(self) -> None:
        """Passes everything on from here: a WebSocket, or whatever was agreed on."""
        rest = self._from_guest.rest()
        if rest:
            await self._host.write(rest)
        rest = self._from_host.rest()
        if rest:
            await self._guest.write(rest)
        await relay(self._from_guest.side, self._from_host.side)

    async def _answer(self, denied: Denied, *, closes: bool) -> None:
        await self._guest.write(encode_answer(denied, closes=closes))

    async def _swallow(self) -> None:
        """Reads what still comes for a moment, so that a program gets to read its answer."""
        await self._guest.finish()
        with contextlib.suppress(SideLost, TimeoutError):
            async with asyncio.timeout(_SWALLOW_SECONDS):
                for _ in range(_SWALLOW_PIECES):
                    if not await self._guest.read():
                        break


_READ_OUT_SECONDS: Final = 600.0
_SWALLOW_SECONDS: Final = 5.0
_SWALLOW_PIECES: Final = 4096


async def _cancelled(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
