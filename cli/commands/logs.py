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
from cli.terminal import write_all
from lns.client.connection.session import Peer, Session, open_session
from lns.client.running.log_reading import read_log
from lns.client.running.members import members_of
from services.chassis.tasks import together
from services.core.errors import RequestInvalid, RunUnknown

_UNIT = r"(ms|s|secs?|seconds?|m|mins?|minutes?|h|hours?|hrs?|d|days?|w|weeks?)"
_PART = re.compile(rf"(\d{{1,9}}(?:\.\d{{1,9}})?)\s*{_UNIT}(?![a-z])")
_SPAN = re.compile(rf"(?:\d{{1,9}}(?:\.\d{{1,9}})?\s*{_UNIT}(?![a-z])[\s,]*)+")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@command("logs", doing="show the log of {run}")
@click.argument("run", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Follow the log until the run ends.")
@click.option(
    "--since",
    metavar="TIME",
    help="Only lines after this time: 10m, '2 hours ago', 2025-01-31T12:00:00Z.",
)
@click.option("--until", metavar="TIME", help="Only lines before this time.")
@click.option("-n", "--tail", metavar="N", help="Only the last N lines; `all` for all.")
@click.option("-t", "--timestamps", is_flag=True, help="Print the time before each line.")
@click.option("--egress", is_flag=True, help="Show what it reached instead; see `lns egress`.")
async def logs(
    context: Context,
    run: str,
    follow: bool,
    since: str | None,
    until: str | None,
    tail: str | None,
    timestamps: bool,
    egress: bool,
) -> None:
    """Show what a run wrote: its standard output on standard output, its errors on standard error.

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
        tail_lines=parse_tail(tail),
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
    stamper = Stamper()
    async for piece in read_log(session.vm, request, revive=session.revive):
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


def parse_tail(text: str | None) -> int | None:
    """Returns a number of lines; None for all of them.

    Raises:
        RequestInvalid: it is neither `all` nor a number.
    """
    if text is None or text == "all":
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise RequestInvalid(f"{text!r} is not a number of lines", hint="write --tail 20, or all")
    return int(text)


def parse_span(text: str) -> float | None:
    """Returns the seconds of `10m`, `1h30m`, `10 minutes ago` or `1 hour 30 minutes`.

    None if it is no span of time.
    """
    span = text.strip().lower().removesuffix("ago").strip()
    if not _SPAN.fullmatch(span):
        return None
    return sum(float(count) * _unit(unit) for count, unit in _PART.findall(span))


def _unit(name: str) -> float:
    """Returns the seconds of a unit of time, which its first letter tells but for one."""
    return 0.001 if name == "ms" else _UNITS[name[0]]


def parse_time(text: str, *, now: float) -> timestamp_pb2.Timestamp:
    """Returns a moment given in ISO 8601, as seconds since 1970, or as a span before `now`.

    Raises:
        RequestInvalid: it has none of these forms.
    """
    stamp = timestamp_pb2.Timestamp()
    try:
        if (span := parse_span(text)) is not None:
            stamp.FromNanoseconds(round((now - span) * 1e9))
        elif re.fullmatch(r"\d+(\.\d+)?", text):
            stamp.FromNanoseconds(round(float(text) * 1e9))
        else:
            moment = dt.datetime.fromisoformat(text)
            moment = moment if moment.tzinfo else moment.astimezone()
            stamp.FromDatetime(moment.astimezone(dt.UTC).replace(tzinfo=None))
    except (ValueError, OverflowError) as error:
        raise RequestInvalid(
            f"{text!r} is not a time",
            hint="write 10m, '2 hours ago', 2025-01-31T12:00:00Z or seconds since 1970",
        ) from error
    return stamp
