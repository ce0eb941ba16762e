"""A guest is not trusted: whatever it sends ends its own run at worst."""

import random
import struct

import pytest
from lns.vm.v1 import run_pb2

from services.vm_runner.wire import Frame, FrameFlag, FrameType, Tag, encode_fields, encode_frame
from tests.support.vm_service import VmClient, VmWorld

Run = run_pb2.Run
FOREVER = "trap 'exit 5' TERM; while :; do sleep 0.01; done"


def frame(
    kind: FrameType, *, stream: int = 1, offset: int = 0, payload: bytes = b"", flags: int = 0
) -> bytes:
    return encode_frame(
        Frame(type=kind, id=stream, offset=offset, payload=payload, flags=FrameFlag(flags))
    )


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
    "a second welcome": frame(FrameType.WELCOME, payload=encode_fields([(Tag.VERSION, 1)])),
    "a request": frame(FrameType.EXEC, payload=b""),
    "fields without end": frame(FrameType.NOTICE, payload=b"\x0a\x00\xff\xff\xff\xff"),
    "a message in parts": frame(FrameType.NOTICE, flags=FrameFlag.MORE),
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
