"""`lns create`: a run that is recorded and not started."""

import sys
from typing import Any

import click

from cli import terminal
from cli.commands.run import make_order, services_of
from cli.context import Context, command
from cli.options import WorkloadCommand, life_options, plan_options
from cli.render.phases import Phases
from cli.render.progress import open_reporter
from lns.client.connection.config import load_config
from lns.client.connection.session import Peer, open_session
from lns.client.content.local_files import place
from lns.client.running.launch import launch


@command(
    "create",
    doing="create a run of {reference}",
    cls=WorkloadCommand,
    short_help="Record a run that is started later",
)
@click.argument("reference", metavar="[REF]", required=False)
@plan_options
@life_options
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
async def create(context: Context, reference: str | None, quiet: bool, **flags: Any) -> None:
    """Do all that `lns run` does before it starts the run, and print the run's id.

    `lns start` starts it, of a bundle of several agents by the name of the group.
    """
    order = make_order(context, load_config(context), reference, start=False, **flags)
    context.doing = f"create a run of {order.subject}"
    async with open_session(context, *Peer) as session:
        await place(order.resolve, session)
        with (
            open_reporter(context, sys.stderr, quiet=quiet) as reporter,
            terminal.cancelled_by_signals(),  # what was created is taken back then
        ):
            runs = await launch(order, services_of(session), reporter=reporter, phases=Phases())
    for run in runs:
        context.write(run.run_id)
