"""`http://lns.internal/`: reads a program's requests; the runner has the pages."""

from typing import Final, Protocol

from services.core.egress.hosts import PAGE_HOST
from services.vm_runner.egress_worker.bodies import BodyReader
from services.vm_runner.egress_worker.endings import Ended
from services.vm_runner.egress_worker.heads import HeadInvalid, RequestHead, parse_request
from services.vm_runner.egress_worker.http1_input import Input
from services.vm_runner.egress_worker.orders import PageAnswer
from services.vm_runner.egress_worker.reports import PageWanted, Reason
from services.vm_runner.egress_worker.run_state import RunState
from services.vm_runner.egress_worker.sides import Side

_NO_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
_BODY_MOST: Final = 64 * 1024
_HOSTS: Final = (PAGE_HOST.encode(), PAGE_HOST.encode() + b":80")


class PageOffice(Protocol):
    """Makes the pages."""

    async def ask_page(self, wanted: PageWanted) -> PageAnswer:
        """Waits for a page; its number is given there."""
        ...


async def serve_pages(guest: Side, connection: int, *, run: RunState, office: PageOffice) -> None:
    """Answers requests until the program hangs up.

    Raises:
        Ended: what came is no request for a page.
        SideLost: the program broke off.
    """
    source = Input(guest)
    try:
        while True:
            head = await source.head(run.limits.header_bytes)
            if head is None:
                break
            request = parse_request(head, most=run.limits.header_bytes)
            _check_host(request)
            body = await _read_body(source, request)
            answer = await office.ask_page(_wanted(connection, request, body))
            await guest.write(_encode(answer, is_head=request.method == b"HEAD"))
            if not request.keeps_alive:
                break
    except HeadInvalid as error:
        await guest.write(
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        await guest.finish()
        raise Ended(Reason.MALFORMED, str(error)) from error
    await guest.finish()


def _check_host(request: RequestHead) -> None:
    hosts = [host.lower().removesuffix(b".") for host in request.values(b"host")]
    if hosts and hosts[0] not in _HOSTS:
        raise HeadInvalid("another host")


async def _read_body(source: Input, request: RequestHead) -> bytes:
    reader, read = BodyReader(request), b""
    while not reader.done:
        read += await source.piece(reader)
        if len(read) > _BODY_MOST:
            raise HeadInvalid("a body that is too long")
    return read


def _wanted(connection: int, request: RequestHead, body: bytes) -> PageWanted:
    path, _, query = request.target.decode("latin-1").partition("?")
    return PageWanted(
        request=1,
        connection=connection,
        method=request.method.decode("latin-1")[:128],
        path=path[:2048],
        query=query[:2048],
        body=body.decode("utf-8", "replace")[:_BODY_MOST],
    )


def _encode(answer: PageAnswer, *, is_head: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {'OK' if answer.status == 200 else 'Refused'}\r\n"  # noqa: PLR2004 - done
        f"content-type: {answer.content_type}\r\n"
        f"content-length: {len(answer.body)}\r\n"
        "cache-control: no-store\r\n\r\n"
    )
    return head.encode("latin-1", "replace") + (b"" if is_head else answer.body)
