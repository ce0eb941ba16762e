"""What is done in a guest that has no run yet: an image is mounted, and a run rehearsed.

A rehearsal executes the agent's own program, never one of the image: nothing of an image runs
before somebody asks for it.
"""

from dataclasses import replace

from services.core.errors import VmFailed
from services.vm_runner.channel.requests import Builtin, GuestConfig, ProcessSpec
from services.vm_runner.channel.session import open_session
from services.vm_runner.machines import Machine
from services.vm_runner.snapshots.snapshot import Root

_PROCESS = 1
_STREAM = 1
_FILES = tuple(
    (path, b"\n") for path in ("/etc/hosts", "/etc/hostname", "/etc/machine-id", "/etc/resolv.conf")
)
_NOTHING = ProcessSpec(
    argv=("rehearsal",), stdio_stream=_STREAM, is_main=True, builtin=Builtin.NOTHING
)


async def prepare(
    machine: Machine, root: Root, *, writable: bool, rehearsals: int, seconds: float
) -> None:
    """Mounts an image in a guest and rehearses runs; the guest is then as if nothing had been.

    Args:
        machine: whose guest it is.
        root: the image.
        writable: whether the writable layer is on its disk, where it stays mounted, or in memory.
        rehearsals: how many runs are rehearsed: emulation is fast where it has been before.
        seconds: longest time for the guest's answer.

    Raises:
        GuestUnreachable: it does not answer.
        VmFailed: it cannot mount the image, or not rehearse.
    """
    config = replace(root.config, writable_disk=root.writable_disk if writable else "")
    async with open_session(await machine.connect(), answer_seconds=seconds) as session:
        prepared = await session.prepare(config)
        if prepared.errno:
            raise VmFailed(f"the guest cannot mount the image: {prepared.stage}: {prepared.text}")
    for _ in range(rehearsals):
        await _rehearse(machine, replace(config, hostname="rehearsal", files=_FILES), seconds)


async def _rehearse(machine: Machine, config: GuestConfig, seconds: float) -> None:
    async with open_session(await machine.connect(), answer_seconds=seconds) as session:
        configured = await session.configure(config)
        if configured.errno:
            raise VmFailed(f"a run cannot be rehearsed: {configured.stage}: {configured.text}")
        process = session.start_process(_PROCESS, _NOTHING)
        state = await process.wait_ended()
        if state.exit_code or state.errno:
            raise VmFailed(f"a process cannot be rehearsed: {state.stage} {state.text}")
        await session.clear()
