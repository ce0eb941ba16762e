"""The composition roots of the suite: the four services in two processes.

    python -m services.suite            owns live VMs: vm_runner; starts the other and ends with it
    python -m services.suite.content    reads bytes of registries and archives: the other three

A parser that hostile bytes crash, exhaust or take over is thus not in the process that holds the
VMs, and neither waits for the other's interpreter. They meet as services everywhere do: through
sockets.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from services.chassis.server import Service
from services.chassis.sockets import suite_socket
from services.core.version import VERSION
from services.suite.content_process import content_process
from services.suite.log_file import LogFile
from services.suite.ownership import announce, suite_ownership
from services.suite.settings import ContentProcess, SuiteProcess, SuiteSettings, of_runner


@contextlib.asynccontextmanager
async def open_services(
    settings: SuiteProcess, *, arguments: Sequence[str] = ()
) -> AsyncIterator[Sequence[Service]]:
    """Yields the VM runner's services, with the other process beside it.

    Owns the state directory until the block ends. What asks others goes before what it asks: the
    other process is ended last.

    Args:
        settings: those of both processes.
        arguments: of the command line, for the other process.

    Raises:
        InUse: another suite serves from the state directory.
        SettingsInvalid: a setting cannot be used.
        LnsError: as the other process gave it.
    """
    home, own = settings.home, settings.suite
    run, logs = home / "run", home / "logs"
    for directory in (home, run, logs):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(
            suite_ownership(run / "suite.lock", suite_socket(home), patience=own.patience)
        )
        await stack.enter_async_context(_log(home, own).rotated())
        is_ready = await stack.enter_async_context(
            content_process(arguments, patience=own.patience, grace=settings.server.grace)
        )
        # Imported while the other process starts: neither waits for the other's imports.
        from services.vm_runner.bootstrap import open_vm_runner  # noqa: PLC0415 - see above

        await is_ready()
        services = await stack.enter_async_context(open_vm_runner(home, of_runner(settings)))
        announce(run / "suite.version", pid=os.getpid(), version=VERSION)
        yield services


@contextlib.asynccontextmanager
async def open_content(settings: ContentProcess) -> AsyncIterator[Sequence[Service]]:
    """Yields gateway, materializer and resolver; they are closed in reverse.

    Raises:
        InUse: another process owns a store of the state directory.
        SettingsInvalid: a setting cannot be used.
    """
    from services.materializer.bootstrap import open_materializer  # noqa: PLC0415 - see above
    from services.registry_gateway.bootstrap import open_gateway  # noqa: PLC0415 - see above
    from services.resolver.bootstrap import open_resolver  # noqa: PLC0415 - see above

    home = settings.home
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_log(home, settings.suite, rotates=False).rotated())
        yield [
            await stack.enter_async_context(opened)
            for opened in (
                open_gateway(home, settings.registry_gateway),
                open_materializer(home, settings.materializer),
                open_resolver(home, settings.resolver),
            )
        ]


def _log(home: Path, own: SuiteSettings, *, rotates: bool = True) -> LogFile:
    return LogFile(
        home / "logs" / "suite.log", limit=own.log_size, kept=own.log_files, rotates=rotates
    )
