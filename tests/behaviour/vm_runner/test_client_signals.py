"""Signals to `lns exec` as a process: they reach its program whatever its input is."""

import asyncio
import os
import signal
import sys

import pytest
from lns.vm.v1 import run_pb2

from tests.support.lns_command import ROOT
from tests.support.vm_service import VmClient, VmWorld

SCRIPT = (
    "trap 'exit 11' INT; trap 'exit 12' TERM; trap 'exit 13' HUP; trap 'exit 14' QUIT;"
    " echo up; while :; do sleep 0.01; done"
)
CODES = {"SIGINT": 11, "SIGTERM": 12, "SIGHUP": 13, "SIGQUIT": 14}


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("input_bytes", [0, 2_000_000], ids=["no input", "a full pipe"])
async def test_a_signal_to_an_exec_reaches_its_program(
    vm: VmClient, world: VmWorld, name: str, input_bytes: int
) -> None:
    run = await vm.shell("sleep 300", options=run_pb2.RunOptions(name="r"))
    await vm.until(run.run_id, run_pb2.Run.STATE_RUNNING)
    options = ["-i"] if input_bytes else []
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from cli.main import main; main()"),
        *("exec", *options, "r", "sh", "-c", SCRIPT),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(world.home),
            "LNS_DESK": "off",
            "LNS_ENDPOINT_VM_RUNNER": f"unix:{world.home}/vm.sock",
            "PYTHONPATH": f"{ROOT}:{ROOT}/protos/gen",
        },
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(bytes(input_bytes))
    assert await process.stdout.readline() == b"up\n"
    process.send_signal(signal.Signals[name])
    await asyncio.wait_for(process.wait(), 60)

    assert process.returncode == CODES[name]
