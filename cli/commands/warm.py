"""`lns warm`: what a first run makes behind it, made ahead."""

import sys
from typing import Any

import click
from lns.vm.v1 import vm_service_pb2 as pb

from cli import terminal
from cli.commands.run import make_order, services_of
from cli.context import Context, command
from cli.options import WorkloadCommand, life_options, plan_options
from cli.render.phases import Phases
from cli.render.progress import open_reporter
from lns.client.connection.config import load_config
from lns.client.connection.session import Peer, open_session
from lns.client.content.local_files import place
from lns.client.running.launch import prepare

_ID_CHARACTERS = 12
_MAKING_SECONDS = 600.0


@command(
    "warm",
    doing="warm {reference}",
    cls=WorkloadCommand,
    short_help="Make a reference start fast: fetch it and snapshot it",
)
@click.argument("reference", metavar="REF")
@plan_options
@life_options
@click.option("-q", "--quiet", is_flag=True, help="No progress and no phase line.")
async def warm(context: Context, reference: str, quiet: bool, **flags: Any) -> None:
    """Do all that a first `lns run` of REF does but run it, and print the ids of its snapshots.

    Runs with as many CPUs and as much memory, disk, binds and mounts are then resumed, whatever
    their command, environment, user or name. One machine waits for the next of them.
    """
    order = make_order(context, load_config(context), reference, start=False, **flags)
    context.doing = f"warm {order.subject}"
    phases = Phases()
    async with open_session(context, *Peer) as session:
        await place(order.resolve, session)
        with (
            open_reporter(context, sys.stderr, quiet=quiet) as reporter,
            terminal.cancelled_by_signals(),
        ):
            services = services_of(session)
            plans, images = await prepare(order, services, reporter=reporter, phases=phases)
            reporter.doing(f"making the snapshot of {order.subject}")
            with phases.measure("snapshot"):
                made = [
                    await session.vm.MakeSnapshot(
                        pb.MakeSnapshotRequest(plan=plan, image_digest=image),
                        timeout=_MAKING_SECONDS,
                    )
                    for plan, image in zip(plans, images, strict=True)
                ]
    for one in made:
        context.write(one.snapshot.id[:_ID_CHARACTERS])
    if not quiet:
        context.note(phases.line())
