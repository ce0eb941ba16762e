"""A guest is not trusted: whatever it sends ends its own run at worst."""

import asyncio
import contextlib
import random
import struct
from collections.abc import AsyncIterator

import pytest
import structlog
from lns.vm.v1 import run_pb2

from services.core.errors import LnsError
from services.vm_runner.channel.wire import (
    Frame,
    FrameFlag,
    FrameType,
    Tag,
    encode_fields,
    encode_frame,
)
from tests.support.eventually import eventually
from tests.support.vm_service import VmClient, VmWorld

Run = run_pb2.Run
FOREVER = "trap 'exit 5' TERM; while :; do sleep 0.01; done"


def frame(
    kind: FrameType, *, stream: int = 1, offset: int = 0, payload: bytes = b"", flags: int = 0
) -> bytes:
    return encode_frame(
        Frame(type=kind, id=stream, offset=offset, payload=payload, flags=FrameFlag(flags))
    )


ANYWHERE = encode_fields([(Tag.ADDRESS, bytes(10) + b"\xff\xff\x7f\x4d\x01\x01"), (Tag.PORT, 80)])
ATTACKS = {
    "noise": random.Random(3).randbytes(100_000),  # noqa: S311  # repeatable, not secret
    "zeros": bytes(100_000),
    "a length without end": b"\xc5\x10\x00\x00\xff\xff\xff\xff" + bytes(40),
    "data without credit": frame(FrameType.DATA, offset=1 << 40, payload=b"x"),
    "data far back": frame(FrameType.DATA, offset=1 << 63, payload=b"x"),
    "an acknowledgement of the future": frame(
        FrameType.ACK, offset=1 << 62, payload=struct.pack("<Q", 1 << 62)
    ),
    "a limit without end": frame(FrameType.ACK, payload=struct.pack("<Q", (1 << 64) - 1)),
    "its output given up": frame(FrameType.RESET),
    "a second welcome": frame(FrameType.WELCOME, payload=encode_fields([(Tag.VERSION, 1)])),
    "a request": frame(FrameType.EXEC, payload=b""),
    "fields without end": frame(FrameType.NOTICE, payload=b"\x0a\x00\xff\xff\xff\xff"),
    "a message in parts": frame(FrameType.NOTICE, flags=FrameFlag.MORE),
    "connections without end": b"".join(
        frame(FrameType.OPEN, stream=ticket, payload=ANYWHERE) for ticket in range(1, 1000)
    ),
    "a connection to no address": frame(
        FrameType.OPEN, payload=encode_fields([(Tag.ADDRESS, bytes(5)), (Tag.PORT, 80)])
    ),
    "a refusal": frame(FrameType.REFUSE),
    "an impossible state": frame(FrameType.EXEC_STATE, payload=encode_fields([(Tag.STATE, 77)])),
}


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
async def test_a_guest_that_breaks_the_protocol_ends_its_own_run(
    vm: VmClient, world: VmWorld, attack: str
) -> None:
    other = await vm.shell(FOREVER)
    run = await vm.shell(FOREVER)
    await vm.until(run.run_id, Run.STATE_RUNNING)
    await vm.until(other.run_id, Run.STATE_RUNNING)

    await world.host.machines[run.run_id].forge(ATTACKS[attack])

    failed = await vm.ended(run.run_id)
    assert failed.state == Run.STATE_FAILED
    assert "the guest" in failed.error.message
    assert set(world.host.machines) == {other.run_id}
    out, _, _ = await vm.execute(other.run_id, "echo", "fine")
    assert out == b"fine\n"


async def test_words_of_a_guest_that_nobody_asked_for_are_harmless(
    vm: VmClient, world: VmWorld
) -> None:
    run = await vm.shell(FOREVER)
    await vm.until(run.run_id, Run.STATE_RUNNING)
    machine = world.host.machines[run.run_id]
    for number in range(2000):
        await machine.forge(
            frame(FrameType.DATA, stream=900 + number, payload=b"for nobody")
            + frame(FrameType.RESET, stream=900 + number)
            + frame(FrameType.CONNECTED, stream=900 + number)
            + frame(FrameType.NOTICE, payload=encode_fields([(Tag.TEXT, "x" * 900)]))
            + frame(FrameType.STATS, payload=b"")
        )

    out, _, _ = await vm.execute(run.run_id, "echo", "fine")
    assert out == b"fine\n"


FLOODS = {
    "notices": frame(FrameType.NOTICE, payload=encode_fields([(Tag.TEXT, "\x01" * 1000)])),
    "empty notices": frame(FrameType.NOTICE),
    "notices of many fields": frame(
        FrameType.NOTICE, payload=encode_fields([(Tag.STAGE, "")] * 64)
    ),
    "figures": frame(FrameType.STATS),
    "states of nobody": frame(
        FrameType.EXEC_STATE, stream=77, payload=encode_fields([(Tag.STATE, 2)])
    ),
    "states of the workload": frame(FrameType.EXEC_STATE, payload=encode_fields([(Tag.STATE, 1)])),
    "acknowledgements": frame(FrameType.ACK, payload=struct.pack("<Q", 1)),
    "acknowledgements of nothing": frame(FrameType.ACK, stream=901, payload=struct.pack("<Q", 1)),
    "ends of nothing": frame(FrameType.RESET, stream=901),
    "connections of nobody": frame(FrameType.CONNECTED, stream=901),
    "configurations": frame(FrameType.CONFIGURED),
    "readiness": frame(FrameType.READY),
    "farewells": frame(FrameType.GOODBYE),
    "data of nothing": frame(FrameType.DATA, stream=901, payload=b"x"),
    "data that came already": frame(FrameType.DATA, payload=b""),
}


class Flood:
    """A guest that says one thing without end, beside what it says otherwise."""

    def __init__(self, world: VmWorld, run: Run, said: bytes) -> None:
        self._machine = world.host.machines[run.run_id]
        self._said = said * (65536 // len(said))
        self.taken = 0

    async def _flow(self) -> None:
        while True:
            await self._machine.forge(self._said)
            self.taken += len(self._said)

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator["Flood"]:
        task = asyncio.create_task(self._flow())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize("kind", FLOODS, ids=str)
async def test_a_flood_of_one_guest_leaves_the_others_their_turn(
    vm: VmClient, world: VmWorld, kind: str
) -> None:
    """The others are served while it lasts, and nothing of it is kept or logged."""
    hostile = await vm.shell(FOREVER)
    other = await vm.shell(FOREVER)
    await vm.until(hostile.run_id, Run.STATE_RUNNING)
    await vm.until(other.run_id, Run.STATE_RUNNING)

    with structlog.testing.capture_logs() as logged:
        async with Flood(world, hostile, FLOODS[kind]).flowing() as flood:
            await eventually(lambda: flood.taken > 0)
            for number in range(8):
                out, _, _ = await vm.execute(other.run_id, "echo", str(number))
                assert out == b"%d\n" % number
            before = flood.taken
            await eventually(lambda: flood.taken > before, within=20)  # it goes on all the time
            kept = what_is_kept(world, hostile)

    assert kept < 1 << 20
    assert len([entry for entry in logged if entry["event"] != "rpc_finished"]) < 20
    assert (await vm.get(hostile.run_id)).state == Run.STATE_RUNNING


def what_is_kept(world: VmWorld, run: Run) -> int:
    """Returns the bytes that the host holds of, and for, a guest."""
    session = world.runner.register.find(run.run_id).guest()
    streams = sum(len(stream._arrived) for stream in session._streams.values())
    buffered = session._connection._protocol._filled  # type: ignore[attr-defined]  # of the socket
    notices = sum(map(len, session.notices))
    return session.channel.backlog + streams + notices + buffered


async def test_many_flooding_guests_share_what_one_may_take(vm: VmClient, world: VmWorld) -> None:
    runs = [await vm.shell(FOREVER) for _ in range(5)]
    other = await vm.shell(FOREVER)
    for run in (*runs, other):
        await vm.until(run.run_id, Run.STATE_RUNNING)

    async with contextlib.AsyncExitStack() as stack:
        floods = [
            await stack.enter_async_context(Flood(world, run, FLOODS["notices"]).flowing())
            for run in runs
        ]
        for number in range(3):
            out, _, _ = await vm.execute(other.run_id, "echo", str(number))
            assert out == b"%d\n" % number
        before = [flood.taken for flood in floods]
        await eventually(
            lambda: all(one.taken > was for one, was in zip(floods, before, strict=True)),
            within=30,
        )


async def test_a_guest_that_takes_nothing_is_sent_no_more_than_it_may_owe(
    vm: VmClient, world: VmWorld
) -> None:
    run = await vm.shell(FOREVER)
    await vm.until(run.run_id, Run.STATE_RUNNING)
    await world.host.machines[run.run_id].pause()  # the VMM still listens, the guest does not
    words = ["x" * 100_000] * 8
    session = world.runner.register.find(run.run_id).guest()

    async with asyncio.TaskGroup() as calls:
        calling = [calls.create_task(refused(vm, run, words)) for _ in range(40)]
        await eventually(lambda: any(call.done() for call in calling))
        assert session.channel.backlog < 8 << 20
        await world.host.machines[run.run_id].kill()

    assert "does not take" in "".join(call.result() for call in calling)


async def refused(vm: VmClient, run: Run, words: list[str]) -> str:
    try:
        await vm.execute(run.run_id, "true", *words)
    except LnsError as error:
        return error.message
    return ""
