"""Service processes of tests: started, awaited until they serve, ended."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.chassis.channel import open_channel
from services.chassis.settings import PeerSettings
from services.core.errors import ServiceUnavailable

ROOT = Path(__file__).resolve().parents[2]


@contextlib.asynccontextmanager
async def started(
    module: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Yields `python -m module arguments`, its standard output piped; kills what is left of it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{ROOT}/protos/gen",
            **(environment or {}),
        },
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def killed_at(event: str, pattern: str, before: int) -> Mapping[str, str]:
    """Returns the variables with which a materializer is killed at a point.

    `tests/support/killing` says what points there are.
    """
    killing = ROOT / "tests" / "support" / "killing"
    return {
        "PYTHONPATH": f"{killing}:{ROOT}:{ROOT}/protos/gen",
        "LNS_TEST_KILL": f"{event} {pattern} {before}",
    }


async def serving(peer: PeerSettings, *, within: float = 45.0) -> None:
    """Returns when the process at `peer` says that it serves."""
    async with asyncio.timeout(within), open_channel(peer) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            with contextlib.suppress(ServiceUnavailable):
                answer = await stub.Check(health_pb2.HealthCheckRequest())
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            await asyncio.sleep(0.02)
