"""`lns resolve` and `lns lock`: what a run would be, and pinning it."""

import asyncio
from pathlib import Path
from typing import Any

import click
from lns.resolver.v1 import resolver_service_pb2 as pb

from cli.config import load_config
from cli.context import FAILURE, Context, command
from cli.options import WorkloadCommand, existing_file, plan_options, platform_option
from cli.render.output import columns, write_rows
from cli.render.plan import write_plans
from cli.render.text import short_id
from cli.run.local_files import place
from cli.run.request import PlanFlags, parse_platform, resolve_request
from cli.session import Peer, open_session
from services.core.errors import RequestInvalid


@command(
    "resolve",
    doing="resolve {reference}",
    cls=WorkloadCommand,
    short_help="Show the plan of a run with the origin of each value",
)
@click.argument("reference", metavar="[REF]", required=False)
@plan_options
@click.option("--format", "form", metavar="FORMAT", help="table, json, yaml or a template.")
async def resolve(
    context: Context, reference: str | None, form: str | None, **plan_flags: Any
) -> None:
    """Show what `lns run` with the same arguments would run, and where each value comes from."""
    request = resolve_request(
        PlanFlags(**plan_flags),
        reference=reference,
        argv=context.workload,
        context=context,
        config=load_config(context),
    )
    async with open_session(context, Peer.RESOLVER, Peer.REGISTRY_GATEWAY) as session:
        await place(request, session)
        response = await session.resolver.Resolve(request)
    write_plans(response.plans, form=form, write=context.write)


@command("lock", doing="lock {reference}")
@click.argument("reference", metavar="[REF]", required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write the lock there instead of standard output, which - is too.",
)
@click.option(
    "--check",
    type=existing_file(),
    metavar="LOCK",
    help="Compare a lock with what its reference is now.",
)
@platform_option
async def lock(
    context: Context,
    reference: str | None,
    output: Path | None,
    check: Path | None,
    platform: str | None,
) -> int:
    """Pin everything that a run of REF stands on by digest, for `lns run --locked`.

    With --check, exit code 1 says that the lock is out of date.
    """
    if (reference is None) == (check is None):
        raise RequestInvalid("lock wants a reference, or a lock to check", hint="see --help")
    if check is not None:
        context.doing = f"check {check}"
        return await _check(context, check)
    request = pb.LockRequest(reference=reference or "", platform=parse_platform(platform))
    async with open_session(context, Peer.RESOLVER) as session:
        response = await session.resolver.Lock(request)
    if output is None or output == Path("-"):
        context.write(response.lock.decode("utf-8").rstrip("\n"))
    else:
        from services.chassis.durable import write_bytes  # noqa: PLC0415 - only when there is a file

        write_bytes(output, response.lock)
        context.note(f"{output} pins {_count(len(response.closure))}")
    return 0


def _count(manifests: int) -> str:
    return "1 manifest" if manifests == 1 else f"{manifests} manifests"


async def _check(context: Context, file: Path) -> int:
    lock_text = await asyncio.to_thread(file.read_bytes)
    async with open_session(context, Peer.RESOLVER) as session:
        response = await session.resolver.CheckLock(pb.CheckLockRequest(lock=lock_text))
    if not response.differences:
        context.note("the lock is up to date")
        return 0
    rows = [
        {
            "component": difference.component,
            "locked": short_id(difference.locked_digest) or "-",
            "now": short_id(difference.current_digest) or "-",
        }
        for difference in response.differences
    ]
    table = columns(component="COMPONENT", locked="LOCKED", now="NOW")
    write_rows(rows, table, form=None, write=context.write)
    return FAILURE
