"""`lns resolve` and `lns lock`: what a run would be, and pinning it."""

import asyncio
from pathlib import Path
from typing import Any

import click
from lns.resolver.v1 import resolver_service_pb2 as pb

from cli import lock_pins
from cli.context import FAILURE, Context, command
from cli.options import WorkloadCommand, existing_file, plan_options, platform_option
from cli.render.output import columns, write_rows
from cli.render.plan import write_plans
from cli.render.text import short_id
from lns.client.connection.config import load_config
from lns.client.connection.session import Peer, open_session
from lns.client.content.local_files import place
from lns.client.running.request import PlanFlags, parse_platform, resolve_request
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
        environment=context.environment,
        config=load_config(context),
    )
    async with open_session(context, Peer.RESOLVER, Peer.REGISTRY_GATEWAY) as session:
        await place(request, session)
        response = await session.resolver.Resolve(request)
    write_plans(response.plans, form=form, write=context.write)


@command("lock", doing="lock {words}")
@click.argument("words", metavar="REF | ls | rm ID...", nargs=-1)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="File to write the lock to; - is standard output, the default.",
)
@click.option(
    "--check",
    type=existing_file(),
    metavar="LOCK",
    help="Compare a lock file with the current state of its reference.",
)
@click.option("--no-pin", is_flag=True, help="Do not keep in the store what the lock names.")
@platform_option
@click.option("--format", "form", metavar="FORMAT", help="Of ls: table, json, yaml or a template.")
async def lock(
    context: Context,
    words: tuple[str, ...],
    output: Path | None,
    check: Path | None,
    no_pin: bool,
    platform: str | None,
    form: str | None,
) -> int:
    """Pin everything that a run of REF stands on by digest, for `lns run --locked`.

    What a lock names is pulled into the store and kept there, whatever is pruned, so that a run of
    it needs no registry. `lns lock ls` lists what is kept for locks, `lns lock rm ID` gives it up.

    With --check, exit code 1 says that the lock is out of date.
    """
    if check is not None and not words:
        context.doing = f"check {check}"
        return await _check(context, check)
    if words == ("ls",):
        await lock_pins.show(context, form)
        return 0
    if words[:1] == ("rm",) and len(words) > 1:
        await lock_pins.remove(context, words[1:])
        return 0
    if len(words) != 1 or check is not None:
        raise RequestInvalid("lock wants a reference, or a lock to check", hint="see --help")
    context.doing = f"lock {words[0]}"
    config = load_config(context)
    request = pb.LockRequest(
        reference=words[0],
        platform=parse_platform(platform or config.get("platform")),
        emulate_foreign=platform is None and config.get("foreign") == "emulate",
    )
    async with open_session(context, Peer.RESOLVER, Peer.REGISTRY_GATEWAY) as session:
        response = await session.resolver.Lock(request)
        if not no_pin:
            await lock_pins.keep(context, session, words[0], response)
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
