"""lns for Python programs: microVMs, artifacts and approvals behind one typed client.

    from lns.client import Client

    async with Client() as lns:
        async with await lns.run("localhost:5000/images/python:1", "sleep", "infinity") as run:
            done = await run.exec("python3", "-c", "print(6 * 7)")
            print(done.text)

`SyncClient` is the same without `await`. Failures are the errors of `lns.client.errors`. The
command line stands on the same packages: `connection`, `content` and `running` below.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lns.client.blocking import SyncClient, SyncRun
    from lns.client.client import Client
    from lns.client.process import Process
    from lns.client.run import Run
    from lns.client.values import (
        Completed,
        ExecOptions,
        ForkOptions,
        Output,
        Pulled,
        Pushed,
        RunOptions,
    )

__all__ = [
    "Client",
    "Completed",
    "ExecOptions",
    "ForkOptions",
    "Output",
    "Process",
    "Pulled",
    "Pushed",
    "Run",
    "RunOptions",
    "SyncClient",
    "SyncRun",
]

_MODULES = {
    "Client": "client",
    "Process": "process",
    "Run": "run",
    "SyncClient": "blocking",
    "SyncRun": "blocking",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is: the command needs only parts of this package."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - see above

    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'values')}"), name)
