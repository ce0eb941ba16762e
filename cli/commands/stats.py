"""`lns stats`: what runs use."""

import asyncio
import sys
from typing import Any

import click
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli.context import Context, command
from cli.options import format_option
from cli.render.output import columns, write_rows
from cli.render.text import format_size, short_id
from cli.render.writer import clear_screen
from lns.client.connection.session import Peer, Session, open_session
from lns.client.running.members import members_of

_COLUMNS = columns(
    id="ID", name="NAME", cpu="CPU %", memory="MEMORY", disk="DISK", channel="IN / OUT", pids="PIDS"
)
_WITH_SERVICES = (*_COLUMNS, *columns(services="SERVICES"))
_INTERVAL_SECONDS = 1.0


@command("stats", doing="show what runs use")
@click.argument("runs", metavar="[RUN...]", nargs=-1)
@click.option("--no-stream", is_flag=True, help="Print one sample and exit.")
@format_option
async def stats(context: Context, runs: tuple[str, ...], no_stream: bool, form: str | None) -> None:
    """Show CPU, memory, disk and channel use of runs, of all that live by default.

    SERVICES is there where a run uses services whose use is counted: how its budgets stand, else
    what it used.
    """
    endless = not no_stream and form is None and sys.stdout.isatty()
    async with open_session(context, Peer.VM_RUNNER) as session:
        before = await _sample(session, runs)
        while True:
            await asyncio.sleep(_INTERVAL_SECONDS)
            now = await _sample(session, runs)
            rows = [stats_row(one, before.get(one.run_id)) for one in now.values()]
            if endless:
                clear_screen()
            shown = _WITH_SERVICES if any(row["services"] for row in rows) else _COLUMNS
            write_rows(rows, shown, form=form, write=context.write)
            if not endless:
                return
            before = now


def stats_row(now: run_pb2.RunStats, before: run_pb2.RunStats | None) -> dict[str, Any]:
    """Returns a run's use as a row; CPU is the share of one CPU since `before`."""
    percent = 0.0
    if before is not None:
        wall = now.sample_time.ToNanoseconds() - before.sample_time.ToNanoseconds()
        used = now.cpu_time.ToNanoseconds() - before.cpu_time.ToNanoseconds()
        percent = 100 * used / wall if wall > 0 else 0.0
    limit = f" / {format_size(now.memory_limit_bytes)}" if now.memory_limit_bytes else ""
    return {
        "id": short_id(now.run_id),
        "name": now.name,
        "cpu": f"{percent:.1f}%",
        "memory": f"{format_size(now.memory_bytes)}{limit}",
        "memory_bytes": now.memory_bytes,
        "disk": format_size(now.disk_bytes),
        "disk_bytes": now.disk_bytes,
        "channel": f"{format_size(now.channel_in_bytes)} / {format_size(now.channel_out_bytes)}",
        "pids": now.pids,
        "services": "; ".join(map(_service_text, now.services)),
    }


def _service_text(use: run_pb2.ServiceUse) -> str:
    tokens = use.input_tokens + use.output_tokens
    amounts = [f"{use.requests} requests", f"{tokens} tokens" if tokens else "", use.cost]
    shown = [*use.limits] or [one for one in amounts if one]
    return f"{use.integration} {', '.join(shown)}"


async def _named(session: Session, names: tuple[str, ...]) -> list[str]:
    """Returns the runs that are named, those of a group for the group's name."""
    runs: list[str] = []
    for name in names:
        members = await members_of(session.vm, name) if name else []
        runs += [run.run_id for run in members] or [name]
    return runs


async def _sample(session: Session, runs: tuple[str, ...]) -> dict[str, run_pb2.RunStats]:
    response = await session.vm.GetStats(pb.GetStatsRequest(runs=await _named(session, runs)))
    return {one.run_id: one for one in response.stats}
