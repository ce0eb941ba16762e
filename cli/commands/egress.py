"""`lns egress` and `lns audit`: what was decided about what a run reaches."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import click
from lns.egress.v1 import egress_service_pb2 as pb

from cli.context import FAILURE, Context, command
from cli.render.text import printable
from cli.run.egress_reading import read_records, record_document, record_line
from lns.client.connection.session import Peer, open_session
from services.core.egress import audit as chain
from services.core.errors import ContentCorrupt

_json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")


@command("egress", doing="show what {run} reaches")
@click.argument("run", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--denied", is_flag=True, help="Only what was refused.")
@_json_option
async def egress(context: Context, run: str, follow: bool, denied: bool, as_json: bool) -> None:
    """Show what was decided about each connection and request of a run, and what became of it.

    In brackets stands the command that would allow what was refused.
    """
    async with open_session(context, Peer.VM_RUNNER) as session:
        async for record in read_records(session.egress, run, follow=follow):
            if denied and record.verdict != "deny":
                continue
            if as_json:
                context.write(json.dumps(record_document(record)))
            else:
                context.write(record_line(record))


@command("audit", doing="verify the audit log of {run}")
@click.argument("run", metavar="RUN")
@click.option("-q", "--quiet", is_flag=True, help="Only verify.")
async def audit(context: Context, run: str, quiet: bool) -> int:
    """Verify the audit log of a run, and show its lines as they are.

    Each line has the hash of the one before. The exit code is 1 if a line was changed, taken out or
    put in; the lines before it are shown. Keep the last hash to find out about lines that are cut
    off at the end.
    """
    count, last = 0, chain.FIRST
    lines: list[bytes] = []
    async with open_session(context, Peer.VM_RUNNER) as session:
        stream = session.egress.ReadAudit(pb.ReadAuditRequest(run=run))
        lines = [line async for line in _lines(stream)]
    try:
        for data, line in _verified(lines):
            count, last = count + 1, line.hash
            if not quiet:
                context.write(printable(data.decode(errors="replace").rstrip("\n")))
    except ContentCorrupt as error:
        context.note(f"lns: {error.message}")
        return FAILURE
    context.note(f"lns: {count} lines, each follows on the one before; last hash {last}")
    return 0


def _verified(lines: list[bytes]) -> Iterator[tuple[bytes, chain.Line]]:
    yield from zip(lines, chain.verified(lines), strict=False)


async def _lines(stream: Any) -> AsyncIterator[bytes]:
    rest = b""
    async for piece in stream:
        *whole, rest = (rest + piece.data).split(b"\n")
        for line in whole:
            yield line + b"\n"
    if rest:
        yield rest
