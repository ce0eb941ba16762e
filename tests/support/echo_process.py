"""An echo service as a process of its own: `python -m tests.support.echo_process --config FILE`.

`Count` answers `began`, then waits for the file that the request names and answers `ended`; or,
without one, until it is cancelled. What it opens and closes is printed, one word a line.
"""

import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from services.chassis import context
from services.chassis.channel import open_channel
from services.chassis.main import run
from services.chassis.server import Service
from services.chassis.settings import PeerSettings, ProcessSettings
from tests.support.echo import DESCRIPTOR, EchoStub, echo_service, text
from tests.support.eventually import eventually


def tell(what: str) -> None:
    """Writes a line for the test that started this process."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


async def echo(request: Any, _: Any) -> Any:
    """Answers with the request; `via TARGET` asks the echo service there for its own context."""
    if not request.value.startswith("via "):
        return text(f"{context.request_id()} {context.remaining():.3f}")
    peer = PeerSettings(target=request.value.removeprefix("via "))
    async with open_channel(peer, DESCRIPTOR) as channel:
        return await EchoStub(channel).Echo(text(""))


async def count(request: Any, _: Any) -> AsyncIterator[Any]:
    """See the module."""
    tell("call began")
    try:
        yield text("began")
        await eventually(lambda: bool(request.value) and Path(request.value).exists(), within=60)
        yield text("ended")
    finally:
        tell("call ended")


@contextlib.asynccontextmanager
async def open_services(_: ProcessSettings) -> AsyncIterator[Sequence[Service]]:
    """Opens two things that tell when they are closed."""
    with contextlib.ExitStack() as stack:
        for name in ("first", "second"):
            tell(f"{name} opened")
            stack.callback(tell, f"{name} closed")
        yield [echo_service(Echo=echo, Count=count)]


if __name__ == "__main__":
    raise SystemExit(run(ProcessSettings, open_services, socket="echo.sock"))
