"""vm_runner in a process of its own, as `python -m services.vm_runner` serves it."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from lns.vm.v1 import vm_service_pb2 as pb
from lns.vm.v1 import vm_service_pb2_grpc

from services.chassis.channel import open_channel
from services.chassis.guest_kernels import kernel_cache
from services.chassis.settings import PeerSettings
from tests.support.vm_service import VmClient

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def runner_process(
    home: Path, *, snapshots: bool = True
) -> AsyncIterator[tuple[asyncio.subprocess.Process, VmClient]]:
    """Serves vm_runner; its temporary files are in `tmp` of the state directory."""
    config = home / "config.yaml"
    config.write_text(
        f"home: {home}\n"
        f"server: {{listen: ['unix:{home}/vm.sock']}}\n"
        "vm_runner:\n"
        f"  materializer: {{target: 'unix:{home}/materializer.sock'}}\n"
        f"  kernels: {kernel_cache(os.environ)}\n"
        "  boot_time: 4m\n" + ("" if snapshots else "  snapshot_disk: 0B\n")
    )
    command = [sys.executable, "-m", "services.vm_runner", "--config", str(config)]
    (home / "tmp").mkdir(exist_ok=True)
    env = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'protos' / 'gen'}",
        "TMPDIR": str(home / "tmp"),
    }
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=env, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        peer = PeerSettings(target=f"unix:{home}/vm.sock", timeout=240)
        async with open_channel(peer, pb.DESCRIPTOR) as channel:
            yield process, VmClient(vm_service_pb2_grpc.VmServiceStub(channel))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
