"""Limits that hold: what one microVM takes to excess ends in it, and another run is served.

Two runs serve the tests of this module; how many processes there may be is in `test_guest`, and a
fork bomb, which nobody survives, in `test_life`.
"""

import asyncio
import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio
from lns.vm.v1 import run_pb2, vm_service_pb2

from tests.support.eventually import eventually
from tests.support.microvm import busybox_image, microvms, require_microvms
from tests.support.runs import a_plan
from tests.support.vm_service import Terminal, VmClient

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
pb = vm_service_pb2
Run = run_pb2.Run
T = TypeVar("T")

_MIB = 1 << 20
DISK_BYTES = a_plan("true").resources.disk_mib * _MIB
LOG_BYTES = _MIB
LISTENS = 'while read -r line; do eval "$line"; done'


class Pair:
    """A run that takes too much, and one beside it."""

    def __init__(self, vm: VmClient, hog: str, other: str, runs: Path, image: str) -> None:
        self.vm = vm
        self.image = image
        self.hog = hog
        self.other = other
        self.directory = runs / hog

    async def meanwhile(self, excess: Coroutine[Any, Any, T]) -> T:
        """Has the other run answer, again and again, until the excess is over."""
        task = asyncio.create_task(excess)
        answers = 0
        while answers == 0 or not task.done():
            out, _, status = await self.vm.execute(self.other, "sh", "-c", f"echo {answers}")
            assert (out, status.code) == (b"%d\n" % answers, 0)
            answers += 1
        return await task

    async def sh(self, script: str) -> tuple[str, int]:
        """Runs a script in the hog; returns both outputs and the exit code."""
        out, err, status = await self.vm.execute(self.hog, "sh", "-c", script)
        return (out + err).decode().strip(), status.code

    def disk_bytes(self) -> int:
        """What the writable layer takes of the host's disk."""
        return (self.directory / "writable.img").stat().st_blocks * 512

    def log_bytes(self) -> int:
        """What the log takes of the host's disk."""
        size = 0
        for path in (self.directory / "logs").iterdir():
            with contextlib.suppress(FileNotFoundError):  # gone with the log's rotation
                size += path.stat().st_size
        return size


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def runs() -> AsyncIterator[Pair]:
    require_microvms()
    home = Path(tempfile.mkdtemp(prefix="lns", dir="/tmp"))
    try:
        async with microvms(home) as (vm, images):
            image = (await busybox_image(images)).composefs_digest
            hog = await vm.create(
                *("sh", "-c", LISTENS),
                digest=image,
                options=run_pb2.RunOptions(stdin=True, log_limit_bytes=LOG_BYTES),
            )
            other = await vm.create("tail", "-f", "/dev/null", digest=image)
            for run in (hog, other):
                await vm.until(run.run_id, Run.STATE_RUNNING)
            yield Pair(vm, hog.run_id, other.run_id, home / "runs", image)
            for run in (hog, other):
                assert (await vm.get(run.run_id)).state == Run.STATE_RUNNING
                await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id, force=True))
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def test_memory(runs: Pair) -> None:
    _, code = await runs.meanwhile(runs.sh("tail /dev/zero"))

    assert code == 137
    assert await runs.sh("echo fine") == ("fine", 0)


async def test_processors(runs: Pair) -> None:
    busy = '(while :; do :; done) & p="$p $!"; '
    script = f"{busy * 8} sleep 2; kill $p; echo over"

    assert await runs.meanwhile(runs.sh(script)) == ("over", 0)


async def test_disk(runs: Pair) -> None:
    """The host's file stays below its limit, and shrinks when the guest removes what filled it."""
    said, _ = await runs.meanwhile(
        runs.sh("yes full | dd of=/fill bs=64k 2>&1; sync; stat -c %s /fill")
    )

    assert "No space left" in said
    written = int(said.splitlines()[-1])
    assert written > DISK_BYTES // 2
    assert written < runs.disk_bytes() <= DISK_BYTES

    assert await runs.sh("rm /fill; sync; echo fine > /x; cat /x") == ("fine", 0)
    await eventually(lambda: runs.disk_bytes() < DISK_BYTES // 4, within=30)


async def test_rate_of_the_disk(runs: Pair) -> None:
    """What is written takes the time that the rate gives it, however quick the host's disk is."""
    run = await runs.vm.create(
        *("tail", "-f", "/dev/null"),
        digest=runs.image,
        options=run_pb2.RunOptions(disk_rate_bytes=2 * _MIB),
    )
    await runs.vm.until(run.run_id, Run.STATE_RUNNING)
    script = (
        "cut -d. -f1 /proc/uptime;"
        "dd if=/dev/urandom of=/x bs=64k count=128 conv=fsync 2>/dev/null;"
        "cut -d. -f1 /proc/uptime"
    )
    out, _, _ = await runs.vm.execute(run.run_id, "sh", "-c", script)
    before, after = map(int, out.split())
    await runs.vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id, force=True))

    assert after - before >= 3  # 8 MiB by 2 a second, less what may be sent ahead


async def test_log(runs: Pair) -> None:
    """A flood is rotated away: the client has all of it, the disk has the last of it."""
    lines = 400_000
    flooded: list[int] = []

    async def flood() -> str:
        received = hashlib.sha256()
        start = pb.AttachStart(run=runs.hog, stdin=True)
        async with runs.vm.attach(start) as terminal:
            await terminal.send(stdin=b"seq %d; echo over\n" % lines)
            said = b""
            while not said.endswith(b"over\n"):
                said = (await terminal.read()).stdout
                received.update(said)
                flooded.append(runs.log_bytes())
        return received.hexdigest()

    received = await runs.meanwhile(flood())
    expected = b"".join(b"%d\n" % number for number in range(1, lines + 1)) + b"over\n"
    kept = await runs.vm.logs(runs.hog)

    assert received == hashlib.sha256(expected).hexdigest()
    assert max(flooded) < 1.5 * LOG_BYTES
    assert LOG_BYTES // 2 < len(kept) < 1.5 * LOG_BYTES
    assert expected.endswith(kept)


async def test_execs(runs: Pair) -> None:
    numbers = iter(range(300))

    async def work() -> None:
        for number in numbers:
            assert await runs.sh(f"echo {number}") == (str(number), 0)

    await runs.meanwhile(_all(*(work() for _ in range(8))))


async def _all(*works: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for work in works:
            tasks.create_task(work)


async def test_input_that_nobody_reads(runs: Pair) -> None:
    sent = 0

    async def flood(terminal: Terminal) -> None:
        nonlocal sent
        while True:
            await terminal.send(stdin=bytes(1 << 16))
            sent += 1 << 16

    async def wait_until_it_stands() -> None:
        before = -1
        while before != sent:
            before = sent
            for _ in range(3):
                await runs.sh("echo still there")

    start = pb.AttachStart(run=runs.hog, exec=pb.ExecSpec(argv=["sleep", "1000"]), stdin=True)
    async with runs.vm.attach(start) as terminal:
        flooding = asyncio.create_task(flood(terminal))
        await runs.meanwhile(wait_until_it_stands())
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)

    assert 1 << 18 < sent < 16 << 20
    await runs.sh("kill $(ps | grep 'sleep 1000' | awk '{print $1}')")
