"""Why calls failed that nobody answered: looked at once for those that fail together."""

import asyncio
import threading

import grpc
import grpc.aio
import pytest

from services.chassis import calls
from services.chassis.reachability import Finding
from services.core.errors import ServiceUnavailable


def unavailable() -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "no connection"
    )


async def test_calls_that_fail_together_share_one_look_and_later_ones_look_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[str] = []
    seen = threading.Event()

    def examine(target: str, tls: object, *, service: str) -> Finding:
        seen.wait(5)
        looks.append(target)
        return Finding(why=f"look {len(looks)}", remedy="start it")

    monkeypatch.setattr(calls, "examine", examine)
    options = calls.Options(target="unix:/none", timeout=1, stream_timeout=1)
    failing = [
        asyncio.ensure_future(options.failure(unavailable(), "/lns.vm.v1.VmService/GetRun"))
        for _ in range(5)
    ]
    await asyncio.sleep(0)
    seen.set()
    together = await asyncio.gather(*failing)
    monkeypatch.setattr(calls, "_EXAMINED_SECONDS", 0.0)
    later = await options.failure(unavailable(), "/lns.vm.v1.VmService/GetRun")

    assert all(isinstance(one, ServiceUnavailable) for one in together)
    assert {one.message for one in together} == {"look 1"}
    assert later.message == "look 2"
