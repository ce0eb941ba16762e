"""The composition root of the suite: the four services side by side, in one process.

They share nothing but the process. What one needs of another it asks through the socket that all of
them are served at, as it would if they were apart.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Sequence

from services.chassis.server import Service
from services.chassis.sockets import suite_socket
from services.core.version import VERSION
from services.materializer.bootstrap import open_materializer
from services.registry_gateway.bootstrap import open_gateway
from services.resolver.bootstrap import open_resolver
from services.suite.log_file import LogFile
from services.suite.ownership import announce, suite_ownership
from services.suite.settings import SuiteProcess
from services.vm_runner.bootstrap import open_vm_runner


@contextlib.asynccontextmanager
async def open_services(settings: SuiteProcess) -> AsyncIterator[Sequence[Service]]:
    """Yields the four services; owns the state directory until the block ends.

    They are closed in reverse: what asks others goes before what it asks.

    Raises:
        InUse: another suite serves from the state directory.
        SettingsInvalid: a setting cannot be used.
    """
    home, own = settings.home, settings.suite
    run, logs = home / "run", home / "logs"
    for directory in (home, run, logs):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = LogFile(logs / "suite.log", limit=own.log_size, kept=own.log_files)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(
            suite_ownership(run / "suite.lock", suite_socket(home), patience=own.patience)
        )
        await stack.enter_async_context(log.rotated())
        services: list[Service] = [
            await stack.enter_async_context(opened)
            for opened in (
                open_gateway(home, settings.registry_gateway),
                open_materializer(home, settings.materializer),
                open_resolver(home, settings.resolver),
            )
        ]
        services += await stack.enter_async_context(open_vm_runner(home, settings.vm_runner))
        announce(run / "suite.version", pid=os.getpid(), version=VERSION)
        yield services
