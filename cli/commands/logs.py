"""`lns logs`: what a run or a group wrote."""

import datetime as dt
import re
import time
from collections.abc import AsyncIterator, Sequence

import click
from google.protobuf import timestamp_pb2
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli.context import Context, command
from cli.run.console import STDERR, STDOUT, open_lines
from cli.run.egress_reading import read_records, record_line
from cli.run.group import members_of
from cli.run.log_reading import read_log
from cli.session import Peer, Session, open_session, reach_suite
from cli.terminal import write_all
from services.chassis.settings_values import parse_duration
from services.chassis.tasks import together
from services.core.errors import RequestInvalid, RunUnknown


@command("logs", doing="show the log of {run}")
@click.argument("run", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--since", metavar="TIME", help="From then on: 2025-01-31T12:00:00Z, or 10m ago.")
@click.option("--until", metavar="TIME", help="Up to then.")
@click.option(
    "-n", "--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines."
)
@click.option("-t", "--timestamps", is_flag=True, help="Begin each line with its time.")
@click.option("--egress", is_flag=True, help="Show what it reached instead; see `lns egress`.")
async def logs(
    context: Context,
    run: str,
    follow: bool,
    since: str | None,
    until: str | None,
    tail: int | None,
    timestamps: bool,
    egress: bool,
) -> None:
    """Show what a run wrote to standard output and standard error, each where it belongs.

    Of a group, the lines of all its runs, each behind the name of its agent.
    """
    if egress:
        async with open_session(context, Peer.VM_RUNNER) as session:
            async for record in read_records(session.egress, run, follow=follow):
                context.write(record_line(record))
        return
    request = pb.ReadLogsRequest(
        run=run,
        follow=follow,
        tail_lines=tail,
        since_time=parse_time(since, now=time.time()) if since else None,
        until_time=parse_time(until, now=time.time()) if until else None,
    )
    async with open_session(context, Peer.VM_RUNNER) as session:
        try:
            async for data, is_error in _read(context, session, request, timestamps=timestamps):
                await write_all(STDERR if is_error else STDOUT, data)
        except RunUnknown:
            members = await members_of(session.vm, run) if run else []
            if not members:
                raise
            await _show_group(context, session, request, members, timestamps=timestamps)


async def _read(
    context: Context, session: Session, request: pb.ReadLogsRequest, *, timestamps: bool
) -> AsyncIterator[tuple[bytes, bool]]:
    async def revive() -> None:
        await reach_suite(context)

    stamper = Stamper()
    async for piece in read_log(session.vm, request, revive=revive):
        data = stamper.stamp(piece) if timestamps else piece.data
        yield data, piece.stream == pb.ReadLogsResponse.STREAM_STDERR


async def _show_group(
    context: Context,
    session: Session,
    request: pb.ReadLogsRequest,
    members: Sequence[run_pb2.Run],
    *,
    timestamps: bool,
) -> None:
    """Shows several logs as they come, one behind the other unless they are followed."""
    lines = open_lines(context, [run.plan.member for run in members])

    async def show(run: run_pb2.Run) -> None:
        own = pb.ReadLogsRequest()
        own.CopyFrom(request)
        own.run = run.run_id
        async for data, is_error in _read(context, session, own, timestamps=timestamps):
            await lines.add(run.plan.member, data, is_error=is_error)
        await lines.finish(run.plan.member)

    if request.follow:
        await together([show(run) for run in members])
    else:
        for run in members:
            await show(run)


class Stamper:
    """Begins each line with the time of the piece that begins it, for each stream."""

    def __init__(self) -> None:
        self._in_line: dict[int, bool] = {}

    def stamp(self, piece: pb.ReadLogsResponse) -> bytes:
        """Returns the bytes of a piece with the time at the beginning of every line."""
        stamp = piece.log_time.ToJsonString().encode() + b" "
        lines = piece.data.split(b"\n")
        in_line = self._in_line.get(piece.stream, False)
        stamped = [line if i == 0 and in_line else stamp + line for i, line in enumerate(lines)]
        if lines[-1] == b"" and (len(lines) > 1 or not in_line):
            stamped[-1] = b""
        self._in_line[piece.stream] = lines[-1] != b"" or (len(lines) == 1 and in_line)
        return b"\n".join(stamped)


def parse_time(text: str, *, now: float) -> timestamp_pb2.Timestamp:
    """Returns a moment given in ISO 8601, as seconds since 1970, or as a span before `now`.

    Raises:
        RequestInvalid: it is none of these.
    """
    stamp = timestamp_pb2.Timestamp()
    try:
        if re.fullmatch(r"\d+(\.\d+)?(ms|s|m|h|d)", text):
            stamp.FromNanoseconds(round((now - parse_duration(text)) * 1e9))
        elif re.fullmatch(r"\d+(\.\d+)?", text):
            stamp.FromNanoseconds(round(float(text) * 1e9))
        else:
            moment = dt.datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.astimezone()
            stamp.FromDatetime(moment.astimezone(dt.UTC).replace(tzinfo=None))
    except ValueError as error:
        raise RequestInvalid(
            f"{text!r} is not a time", hint="write 10m, 2025-01-31T12:00:00Z or seconds since 1970"
        ) from error
    return stamp
