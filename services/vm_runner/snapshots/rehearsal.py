"""What is done in a guest that has no run yet: an image is mounted, and a run rehearsed.

A rehearsal executes the agent's own program, never one of the image: nothing of an image runs
before a run needs it.
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
_AUTHORITY = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
"""Of no use to anyone: it ends with the rehearsal."""

_NOTHING = ProcessSpec(
    argv=("rehearsal",), stdio_stream=_STREAM, is_main=True, builtin=Builtin.NOTHING
)


async def prepare(
    machine: Machine, root: Root, *, writable: bool, rehearsals: int, seconds: float
) -> None:
    """Mounts an image in a guest and rehearses runs; the guest is then as if nothing had been.

    Runs whose requests are looked into put an authority into their image's bundles: that is
    rehearsed, too, and only where the writable layer is in memory, so that nothing of it is left.

    Args:
        machine: whose guest it is.
        root: the image.
        writable: whether the writable layer is mounted from its disk in the end, and stays so.
        rehearsals: how many runs are rehearsed with a writable layer in memory: emulation is fast
            where it has been before. With `writable` one more follows, on the disk.
        seconds: longest time for the guest's answer.

    Raises:
        GuestUnreachable: it does not answer.
        VmFailed: it cannot mount the image, or not rehearse.
    """
    config = replace(root.config, writable_disk="")
    rehearsed = replace(config, hostname="rehearsal", files=_FILES)
    await _mount(machine, config, seconds)
    for _ in range(rehearsals):
        await _rehearse(machine, replace(rehearsed, authority=_AUTHORITY), seconds)
    if writable:
        await _mount(machine, replace(config, writable_disk=root.writable_disk), seconds)
        await _rehearse(machine, replace(rehearsed, writable_disk=root.writable_disk), seconds)


async def _mount(machine: Machine, config: GuestConfig, seconds: float) -> None:
    async with open_session(await machine.connect(), answer_seconds=seconds) as session:
        prepared = await session.prepare(config)
        if prepared.errno:
            raise VmFailed(f"the guest cannot mount the image: {prepared.stage}: {prepared.text}")


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
