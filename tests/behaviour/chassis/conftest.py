"""A served `EchoService` and a stub for it, over a unix socket."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from services.chassis.channel import open_channel
from services.chassis.server import running_server
from services.chassis.settings import PeerSettings, ServerSettings
from tests.support.echo import DESCRIPTOR, EchoStub, echo_service

Serving = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def echo(short_directory: Path) -> Serving:
    """Serves the given behaviours and yields a stub: `async with echo(Echo=…) as stub`."""

    @contextlib.asynccontextmanager
    async def serving(
        *, seconds: float = 30.0, unary_limit: float = 600.0, grace: float = 0.2, **behaviours: Any
    ) -> AsyncIterator[Any]:
        address = f"unix:{short_directory}/echo.sock"
        settings = ServerSettings(listen=(address,), unary_limit=unary_limit, grace=grace)
        async with (
            running_server(settings, [echo_service(**behaviours)]),
            open_channel(PeerSettings(target=address, timeout=seconds), DESCRIPTOR) as channel,
        ):
            yield EchoStub(channel)

    return serving
