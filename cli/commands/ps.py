"""`lns ps`: the list of runs."""

import time
from collections.abc import AsyncIterator

import click
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli.context import Context, command
from cli.options import format_option, quiet_ids
from cli.paging import PAGE_SIZE, every
from cli.render.output import columns, write_rows
from cli.render.runs import newest_first, run_row
from cli.run.filters import parse_filters
from lns.client.connection.session import Peer, Session, open_session

_COLUMNS = columns(
    id="ID",
    name="NAME",
    group="GROUP",
    source="RUNS",
    command="COMMAND",
    created="CREATED",
    status="STATUS",
    ports="PORTS",
)


@command("ps", doing="list runs")
@click.option("-a", "--all", "everything", is_flag=True, help="Include runs that have ended.")
@click.option(
    "-n",
    "--last",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only the N newest runs, in any state.",
)
@click.option("--no-trunc", is_flag=True, help="Do not shorten ids and commands.")
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="KEY=VALUE",
    help="By name, id, status, exited, health, ancestor, label or group; repeatable.",
)
@format_option
@quiet_ids
async def ps(
    context: Context,
    everything: bool,
    last: int | None,
    no_trunc: bool,
    filters: tuple[str, ...],
    form: str | None,
    quiet: bool,
) -> None:
    """List runs, newest first."""
    wanted = parse_filters(filters)
    async with open_session(context, Peer.VM_RUNNER) as session:
        runs = [
            run
            async for run in iter_runs(
                session,
                include_ended=everything or bool(last) or wanted.wants_ended,
                labels=dict(wanted.labels),
                group=wanted.group,
            )
            if wanted.matches(run)
        ]
    shown = newest_first(runs)[:last]
    rows = [
        run_row(run, now=time.time(), whole=no_trunc or form not in (None, "table"))
        for run in shown
    ]
    write_rows(rows, _COLUMNS, form=form, write=context.write, quiet_field="id" if quiet else None)


def iter_runs(
    session: Session,
    *,
    include_ended: bool,
    labels: dict[str, str] | None = None,
    group: str = "",
) -> AsyncIterator[run_pb2.Run]:
    """Yields every run."""
    request = pb.ListRunsRequest(
        include_ended=include_ended, page_size=PAGE_SIZE, labels=labels, group=group
    )
    return every(session.vm.ListRuns, request, lambda page: page.runs)
