"""What travels with a call: its deadline and its request id, over hops and into the log."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.chassis import context
from services.chassis.channel import open_channel
from services.chassis.settings import PeerSettings
from services.core import errors
from tests.behaviour.chassis.conftest import Serving
from tests.support.echo import DESCRIPTOR, EchoStub, text
from tests.support.eventually import eventually
from tests.support.processes import serving, started


async def remaining(_: Any, __: Any) -> Any:
    return text(str(context.remaining()))


async def remaining_stream(_: Any, __: Any) -> AsyncIterator[Any]:
    yield text(str(context.remaining()))


async def own_request_id(_: Any, __: Any) -> Any:
    return text(context.request_id())


async def forever(_: Any, __: Any) -> Any:
    await asyncio.sleep(3600)


async def test_a_call_without_timeout_gets_the_peers_default(echo: Serving) -> None:
    async with echo(seconds=7, Store=remaining, Count=remaining_stream) as stub:
        unary = float((await stub.Store(text(""))).value)
        stream = float((await anext(stub.Count(text("")))).value)

    assert 5 < unary < 8  # gRPC rounds deadlines up
    assert stream > 3600  # a stream may be a terminal; see `PeerSettings.stream_timeout`


async def test_a_timeout_of_the_call_wins(echo: Serving) -> None:
    async with echo(seconds=7, Store=remaining) as stub:
        assert 10 < float((await stub.Store(text(""), timeout=20)).value) < 21


async def test_a_call_never_has_longer_than_the_call_that_it_serves(echo: Serving) -> None:
    async with echo(Store=remaining) as stub:
        context.set_remaining(3)
        try:
            seen = float((await stub.Store(text(""), timeout=20)).value)
        finally:
            context.set_remaining(math.inf)

    assert 1 < seen < 3


async def test_a_call_that_takes_too_long_ends_as_deadline_exceeded(
    echo: Serving, log_entries: list[dict[str, object]]
) -> None:
    async with echo(Store=forever) as stub:
        with pytest.raises(errors.DeadlineExceeded):
            await stub.Store(text(""), timeout=0.05)
        await eventually(lambda: bool(log_entries))

    (line,) = [entry for entry in log_entries if entry["event"] == "rpc_finished"]
    assert line["code"] in {"DEADLINE_EXCEEDED", "CANCELLED"}


async def test_the_server_ends_unary_calls_at_its_own_limit(echo: Serving) -> None:
    async with echo(unary_limit=0.05, Store=forever) as stub:
        with pytest.raises(errors.DeadlineExceeded, match=r"not finished within 0\.05 s"):
            await stub.Store(text(""), timeout=30)


async def test_what_a_unary_call_calls_has_no_longer_than_the_servers_limit(echo: Serving) -> None:
    async with echo(unary_limit=4, Store=remaining) as stub:
        assert 3 < float((await stub.Store(text(""), timeout=30)).value) <= 4
        assert 1 < float((await stub.Store(text(""), timeout=2)).value) < 3


async def test_streams_may_outlast_the_unary_limit(echo: Serving) -> None:
    async def count(_: Any, __: Any) -> AsyncIterator[Any]:
        await asyncio.sleep(0.1)
        yield text(str(context.remaining()))

    async with echo(unary_limit=0.01, Count=count) as stub:
        assert float((await anext(stub.Count(text("")))).value) > 10


async def test_a_timeout_inside_the_handler_is_not_taken_for_the_limit(echo: Serving) -> None:
    async def impatient(_: Any, __: Any) -> Any:
        async with asyncio.timeout(0.01):
            await asyncio.sleep(10)

    async with echo(unary_limit=20, Store=impatient) as stub:
        with pytest.raises(errors.Internal):
            await stub.Store(text(""))


async def test_detached_work_has_no_deadline_of_its_caller(echo: Serving) -> None:
    async def share(_: Any, __: Any) -> Any:
        async def work() -> float:
            return context.remaining()

        loop = asyncio.get_running_loop()
        seconds = await loop.create_task(work(), context=context.detached())
        return text(f"{seconds} {context.remaining() < 10}")

    async with echo(Store=share) as stub:
        assert (await stub.Store(text(""), timeout=5)).value == "inf True"


async def test_a_request_id_and_a_deadline_travel_over_every_hop(short_directory: Path) -> None:
    """Through two processes: this one → `front` → `back`, which answers with what it got."""
    front, back = (short_directory / name for name in ("front", "back"))
    targets = {home: f"unix:{home}/run/echo.sock" for home in (front, back)}
    environments = [{"LNS_HOME": str(home)} for home in (front, back)]
    module = "tests.support.echo_process"

    async with (
        started(module, environment=environments[0]) as front_process,
        started(module, environment=environments[1]) as back_process,
    ):
        for target in targets.values():
            await serving(PeerSettings(target=target))
        async with open_channel(PeerSettings(target=targets[front]), DESCRIPTOR) as channel:
            answer = await EchoStub(channel).Echo(
                text(f"via {targets[back]}"), timeout=9, metadata=(("x-request-id", "trace-1"),)
            )
        request_id, seconds = answer.value.split()
        for process in (front_process, back_process):
            process.terminate()
        logs = [(await p.communicate())[1] for p in (front_process, back_process)]

    assert request_id == "trace-1"
    assert 5 < float(seconds) < 9
    for log in logs:
        lines = [json.loads(line) for line in log.splitlines()]
        assert "trace-1" in {
            line["request_id"] for line in lines if line["event"] == "rpc_finished"
        }


@pytest.mark.parametrize("hostile", ["", "a b", "x" * 65, 'a"b', "../x"])
async def test_a_request_id_that_could_harm_a_log_is_replaced(echo: Serving, hostile: str) -> None:
    async with echo(Store=own_request_id) as stub:
        foreign = stub.Store._inner()  # grpc's own callable: our channel would send an id of ours
        answer = await foreign(text(""), metadata=(("x-request-id", hostile),), timeout=10)

    assert answer.value != hostile
    assert context.is_request_id(answer.value)


async def test_a_call_has_one_line_in_the_log(
    echo: Serving, log_entries: list[dict[str, object]]
) -> None:
    async def chat(requests: Any, _: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield request
            yield request

    async with echo(Chat=chat) as stub:
        call = stub.Chat(iter([text("ab"), text("c")]), metadata=(("x-request-id", "r-1"),))
        assert len([message async for message in call]) == 4

    (line,) = log_entries
    assert line.pop("duration_ms") >= 0  # type: ignore[operator]  # a number
    assert line == {
        "event": "rpc_finished",
        "log_level": "info",
        "method": "/lns.test.v1.EchoService/Chat",
        "code": "OK",
        "reason": "",
        "messages_in": 2,
        "messages_out": 4,
        "bytes_in": 7,
        "bytes_out": 14,
        "peer": "unix:",
        "principal": "",
        "request_id": "r-1",
    }


async def test_what_a_handler_logs_carries_the_request_id(
    echo: Serving, log_entries: list[dict[str, object]]
) -> None:
    import structlog  # noqa: PLC0415  # as a service does

    async def handler(_: Any, __: Any) -> Any:
        await asyncio.to_thread(structlog.get_logger().info, "from_a_thread")
        return text("")

    async with echo(Store=handler) as stub:
        await stub.Store(text(""), metadata=(("x-request-id", "r-2"),))

    (line,) = [entry for entry in log_entries if entry["event"] == "from_a_thread"]
    assert line["request_id"] == "r-2"


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (errors.ManifestUnknown("x"), "info"),
        (errors.ContentCorrupt("x"), "error"),
        (errors.Internal("x"), "error"),
    ],
)
async def test_defects_and_lost_data_are_logged_as_errors(
    echo: Serving, log_entries: list[dict[str, object]], error: errors.LnsError, level: str
) -> None:
    async def fail(_: Any, __: Any) -> Any:
        raise error

    async with echo(Store=fail) as stub:
        with pytest.raises(type(error)):
            await stub.Store(text(""))

    (line,) = [entry for entry in log_entries if entry["event"] == "rpc_finished"]
    assert (line["log_level"], line["reason"]) == (level, error.reason)
