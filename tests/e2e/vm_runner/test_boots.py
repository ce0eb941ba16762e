"""Boots that fail, in real microVMs: what is reported of them, and when another one is made."""

import contextlib
import os
import signal
from pathlib import Path

import pytest
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.chassis.status import from_status
from services.core.errors import VmFailed
from services.vm_runner.adapters.qemu.message_pipe import PIPE, MessagePipe
from tests.support.eventually import eventually
from tests.support.materializer import served
from tests.support.microvm import busybox_image, microvms, require_microvms, served_runner

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
pb = vm_service_pb2
Run = run_pb2.Run


async def test_a_kernel_that_panics_says_why_to_whoever_waits(short_directory: Path) -> None:
    """An agent that is no program; the console outlives the VMM that wrote it."""
    require_microvms()
    agent = short_directory / "agent"
    agent.write_text("no program")
    async with (
        served(short_directory) as images,
        served_runner(short_directory, agent=agent) as vm,
    ):
        image = await busybox_image(images)
        run = await vm.create("true", digest=image.composefs_digest)
        with pytest.raises(VmFailed, match="kernel panicked: No working init found"):
            await vm.output(run.run_id)
        failed = await vm.ended(run.run_id)
        notices = [event.notice for event in await vm.events(run.run_id) if event.notice]

    details = from_status(failed.error).metadata["details"]
    assert failed.state == Run.STATE_FAILED
    assert "Kernel panic - not syncing" in details
    assert "\x1b" not in details
    assert len(notices) == 1  # that it was tried once more
    log = short_directory / "runs" / run.run_id / "qemu.log"
    assert "Kernel panic - not syncing" in log.read_text()


async def test_a_vmm_that_is_killed_before_the_workload_is_replaced(short_directory: Path) -> None:
    require_microvms()
    async with microvms(short_directory) as (vm, images):
        image = await busybox_image(images)
        run = await vm.create("sh", "-c", "echo once; exit 3", digest=image.composefs_digest)
        record = short_directory / "runs" / run.run_id / "qemu.pid"
        await eventually(lambda: record.exists() and record.read_text().endswith("\n"), within=60)
        os.kill(int(record.read_text()), signal.SIGKILL)
        out, _, status = await vm.output(run.run_id)
        notices = [event.notice for event in await vm.events(run.run_id) if event.notice]

    assert (out, status.code) == (b"once\n", 3)
    (notice,) = notices
    assert "QEMU was killed by SIGKILL" in notice


def stuff(pipe: MessagePipe) -> None:
    """Reads a pipe no longer, and fills it to the brim."""
    pipe._stop_watching()
    writer = os.open(pipe._directory / PIPE, os.O_WRONLY | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"stuffed ")
    os.close(writer)


async def test_a_console_that_nobody_reads_holds_up_neither_guest_nor_vmm(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As between two services: QMP answers, programs run, the kernel goes on after its words."""
    require_microvms()
    pipes: list[MessagePipe] = []
    watch = MessagePipe.watch

    def noted(pipe: MessagePipe) -> None:
        pipes.append(pipe)
        watch(pipe)

    monkeypatch.setattr(MessagePipe, "watch", noted)
    async with microvms(short_directory) as (vm, images):
        image = await busybox_image(images)
        run = await vm.create("tail", "-f", "/dev/null", digest=image.composefs_digest)
        await vm.until(run.run_id, Run.STATE_RUNNING)
        stuff(pipes[-1])
        _, _, status = await vm.execute(run.run_id, "tail", "/dev/zero")  # the kernel says so
        assert status.code == 137
        await vm.stub.PauseRun(pb.PauseRunRequest(run=run.run_id))
        await vm.stub.ResumeRun(pb.ResumeRunRequest(run=run.run_id))
        out, _, _ = await vm.execute(run.run_id, "sh", "-c", "echo fine")
        await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id, force=True))

    assert out == b"fine\n"
