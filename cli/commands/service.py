"""`lns service`: the background processes with the services."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from cli.context import FAILURE, Context, subcommand
from cli.options import existing_file, format_option
from cli.render.output import write_document, write_rows
from cli.render.profile import PROFILE_COLUMNS, busiest, collapsed
from lns.client.connection import suite_process
from lns.client.connection.config import load_config
from lns.client.connection.suite_process import Suite, SuiteFiles
from services.chassis.settings import state_directory
from services.core.errors import RequestInvalid
from services.core.version import VERSION

_STOP_SECONDS = 60.0
_PROFILE_SECONDS = 15.0
_FOLLOW_SECONDS = 0.3

_CONFIG = click.option(
    "--config",
    type=existing_file(),
    metavar="FILE",
    help="Settings of the services; default: services.yaml beside `lns config`'s file.",
)


@click.group("service", short_help="Manage the background processes with the services")
def service() -> None:
    """Manage the two background processes that serve lns on unix sockets of the user.

    The first command that needs them starts both, and these commands treat them as one. Runs
    continue while they are stopped.
    """


@subcommand(service, "start", doing="start the services")
@_CONFIG
async def service_start(context: Context, config: Path | None) -> None:
    """Start the services if they do not run."""
    await _start(context, config)


@subcommand(service, "stop", doing="stop the services")
@click.option(
    "-f", "--force", is_flag=True, help="Kill the services without waiting for calls in progress."
)
async def service_stop(context: Context, force: bool) -> None:
    """Let calls under way end, and stop the services."""
    suite = suite_process.find_suite(_files(context))
    if suite is None:
        context.note("the services do not run")
        return
    await _stop(suite, force=force)
    context.note("the services have stopped")


@subcommand(service, "restart", doing="restart the services")
@_CONFIG
async def service_restart(context: Context, config: Path | None) -> None:
    """Stop the services if they run, and start them."""
    from lns.client.connection.session import is_serving, suite_arguments  # noqa: PLC0415 - imports gRPC

    files = _files(context)
    suite = await asyncio.to_thread(
        suite_process.restart_suite,
        files,
        is_ready=lambda: is_serving(files.socket),
        environment=context.environment,
        arguments=suite_arguments(context, config),
        timeout=_STOP_SECONDS,
    )
    context.note(f"the services run as process {suite.pid}")


@subcommand(service, "status", doing="look at the services")
@click.option("--format", "form", metavar="FORMAT", help="json or a template.")
async def service_status(context: Context, form: str | None) -> int:
    """Say whether the services run and answer; exit code 1 if not.

    Where endpoints are configured it tells of those.
    """
    config = load_config(context)
    if any(name.startswith("endpoint-") for name in config):
        return await _endpoints(context, config, form)
    files = _files(context)
    suite = suite_process.find_suite(files)
    document = await asyncio.to_thread(_status, files, suite)
    if form is not None:
        write_document(document, form=form, write=context.write)
    else:
        for key, value in document.items():
            context.write(f"{key.replace('_', ' ') + ':':<17}{_said(value)}")
    return 0 if document["serving"] else FAILURE


async def _endpoints(context: Context, config: Mapping[str, str], form: str | None) -> int:
    """Shows what each configured service says, and returns the exit code."""
    from lns.client.connection.session import look_at_endpoints  # noqa: PLC0415 - imports gRPC

    found = await look_at_endpoints(config)
    if form is not None:
        write_document([asdict(one) for one in found], form=form, write=context.write)
    else:
        for one in found:
            context.write(
                f"{one.service + ':':<18} {'serving' if one.is_serving else 'not serving':<12}"
                f" {one.target}"
            )
            if one.why:
                context.write(f"{'':<18} why: {one.why}")
                context.write(f"{'':<18} try: {one.remedy}")
    return 0 if all(one.is_serving for one in found) else FAILURE


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


@subcommand(service, "logs", doing="show the log of the services")
@click.option("-f", "--follow", is_flag=True, help="Follow the log.")
@click.option(
    "-n",
    "--tail",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    metavar="N",
    help="Show the last N lines.",
)
def service_logs(context: Context, follow: bool, tail: int) -> None:
    """Show the log of the services."""
    path = _files(context).log
    for line in suite_process.tail(path, tail):
        context.write(line)
    if follow:
        _follow(context, path)


@subcommand(service, "profile", doing="take a profile of {name}")
@click.argument(
    "name",
    metavar="SERVICE",
    type=click.Choice(["registry_gateway", "resolver", "materializer", "vm_runner"]),
)
@click.option(
    "--seconds",
    type=click.IntRange(1, 60),
    default=5,
    show_default=True,
    metavar="N",
    help="Look for so long.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write whole stacks, as flame graphs are made of, into this file.",
)
@format_option
async def service_profile(
    context: Context, name: str, seconds: int, output: Path | None, form: str | None
) -> None:
    """Show what the process with SERVICE does, by the functions in which it was found.

    Every thread is looked at a hundred times a second; those that wait do not count. SELF is the
    share of a function itself, TOTAL that with what it calls. SERVICE is registry_gateway,
    resolver, materializer or vm_runner; in the suite, the first three are one process.
    """
    from lns.process.v1 import process_service_pb2 as pb  # noqa: PLC0415 - imports gRPC

    from lns.client.connection.session import Peer, open_session  # noqa: PLC0415 - the same

    peer = Peer[name.upper()]
    async with open_session(context, peer) as session:
        profile = await session.process(peer).TakeProfile(
            pb.TakeProfileRequest(seconds=seconds), timeout=seconds + _PROFILE_SECONDS
        )
    stacks = [(tuple(one.frames), one.samples) for one in profile.stacks]
    if output is not None:
        lines = collapsed(stacks)
        await asyncio.to_thread(output.write_text, "".join(f"{line}\n" for line in lines))
        context.note(f"lns: {len(stacks)} stacks in {output}")
    write_rows(busiest(stacks, profile.looks), PROFILE_COLUMNS, form=form, write=context.write)


def _files(context: Context) -> SuiteFiles:
    return SuiteFiles(home=state_directory(context.environment))


async def _start(context: Context, config: Path | None) -> None:
    from lns.client.connection.session import reach_suite  # noqa: PLC0415 - imports gRPC, which status needs not

    if config is not None and suite_process.find_suite(_files(context)) is not None:
        raise RequestInvalid(
            "the services run already, with the settings they were started with",
            hint=f"`lns service restart --config {config}`",
        )
    suite = await reach_suite(context, config=config)
    context.note(f"the services run as process {suite.pid}")


async def _stop(suite: Suite, *, force: bool) -> None:
    ended = await asyncio.to_thread(
        suite_process.stop_suite, suite, timeout=_STOP_SECONDS, force=force
    )
    if not ended:
        raise suite_process.not_stopped(suite, _STOP_SECONDS)


def _status(files: SuiteFiles, suite: Suite | None) -> dict[str, Any]:
    from lns.client.connection.session import is_serving  # noqa: PLC0415 - imports gRPC

    return {
        "running": suite is not None,
        "serving": suite is not None
        and all(is_serving(one, timeout=5.0) for one in (suite.socket, suite.content_socket)),
        "pid": suite.pid if suite else None,
        "content_pid": suite.content_pid if suite else None,
        "version": suite.version if suite else None,
        "client_version": VERSION,
        "socket": str(files.socket),
        "content_socket": str(files.content_socket),
        "state_directory": str(files.home),
        "log": str(files.log),
    }


def _follow(context: Context, path: Path) -> None:
    """Writes what is added to a file, also after it was rotated, until the user interrupts."""
    position = path.stat().st_size if path.exists() else 0
    while True:
        time.sleep(_FOLLOW_SECONDS)
        if not path.exists():
            continue
        with path.open("rb") as file:
            size = path.stat().st_size
            file.seek(position if size >= position else 0)
            data = file.read()
            position = file.tell()
        if data:
            context.write(data.decode("utf-8", "replace").rstrip("\n"))
