"""The main function of every service process: `python -m services.<name> [--config FILE]`.

    def main() -> int:
        return run(GatewayProcess, open_services, socket="registry_gateway.sock")

Exit codes: 0 drained after a signal, 1 could not start or failed, 2 wrong arguments or settings.
"""

import argparse
import asyncio
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

import structlog

from services.chassis import logs, metrics, tracing
from services.chassis.reserve import full_disk_is_typed
from services.chassis.server import Service, serve
from services.chassis.settings import SECTIONS, ProcessSettings
from services.chassis.settings_tree import load, render
from services.chassis.sockets import make_private_directory, socket_path
from services.core.errors import LnsError, SettingsInvalid

log = structlog.get_logger()

FAILED = 1
MISUSED = 2

Settings = TypeVar("Settings", bound=ProcessSettings)
Open = Callable[[Settings], AbstractAsyncContextManager[Sequence[Service]]]


def run(
    settings_type: type[Settings],
    open_services: Open[Settings],
    *,
    socket: str,
    arguments: Sequence[str] | None = None,
    adapted: Callable[[Settings], Settings] = lambda settings: settings,
    ready: Callable[[Sequence[str]], None] | None = None,
    failed: Callable[[LnsError], None] | None = None,
) -> int:
    """Runs a service process from its arguments to its end; returns the exit code.

    Args:
        settings_type: the tree of its settings.
        open_services: the composition root: opens what the services need while its block runs.
        socket: the name of the default socket, in `run` of the state directory.
        arguments: those of the command line, by default the process's.
        adapted: makes this process's settings of those that were read, where several share a file.
        ready: called with the bound addresses once calls are answered.
        failed: called with the error for which the process cannot serve, after it was logged.
    """
    options = _parse(arguments, socket)
    try:
        settings = load_settings(settings_type, options.config, socket=socket, adapted=adapted)
    except SettingsInvalid as error:
        lines = [f"{v.subject}: {v.description}" for v in error.violations] or [error.message]
        print("\n".join(lines), file=sys.stderr)  # noqa: T201  # there is no log yet
        return MISUSED
    if options.print_config:
        print(render(settings), end="")  # noqa: T201  # what was asked for
        return 0
    logs.configure(settings.log)
    name = socket.removesuffix(".sock")
    process = name if name == "lns" else f"lns-{name}"
    try:
        with (
            tracing.exported(os.environ, process=process) as untraced,
            full_disk_is_typed(settings.home, what="what the service keeps"),
        ):
            if untraced:
                log.warning("no_traces", message=untraced)
            asyncio.run(_serve(settings, open_services, ready))
    except LnsError as error:
        log.error(  # noqa: TRY400  # what it says is all that a person needs
            "not_served",
            reason=error.reason,
            message=error.message,
            hint=error.hint,
            metadata=error.metadata,
        )
        if failed is not None:
            failed(error)
        return MISUSED if isinstance(error, SettingsInvalid) else FAILED
    except Exception:
        log.exception("failed")
        return FAILED
    return 0


def _parse(arguments: Sequence[str] | None, socket: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"Serves lns at {socket} unless configured.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, YAML")
    parser.add_argument(
        "--print-config", action="store_true", help="print the settings in effect and exit"
    )
    return parser.parse_args(arguments)


def load_settings(
    settings_type: type[Settings],
    file: Path | None,
    *,
    socket: str,
    adapted: Callable[[Settings], Settings] = lambda settings: settings,
) -> Settings:
    """Returns the settings of this process, listening at its default socket if nowhere else.

    Raises:
        SettingsInvalid: with one violation for each problem.
    """
    sections = {field.name for field in dataclasses.fields(settings_type)}
    read = load(settings_type, file=file, environment=os.environ, foreign=SECTIONS - sections)
    settings = adapted(read)
    if settings.server.listen:
        return settings
    path = socket_path(settings.home, socket)
    if path.parent != settings.home / "run":
        make_private_directory(path.parent)
    server = dataclasses.replace(settings.server, listen=(f"unix:{path}",))
    return dataclasses.replace(settings, server=server)


async def _serve(
    settings: Settings,
    open_services: Open[Settings],
    ready: Callable[[Sequence[str]], None] | None,
) -> None:
    with metrics.exposed(settings.metrics, home=settings.home):
        async with open_services(settings) as services:
            await serve(settings.server, services, ready=ready)
