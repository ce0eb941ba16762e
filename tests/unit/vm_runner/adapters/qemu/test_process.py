"""How a VMM's launcher is started."""

import asyncio
import sys
from pathlib import Path

import pytest

from services.core.errors import VmFailed
from services.vm_runner.adapters.qemu.message_pipe import MessagePipe
from services.vm_runner.adapters.qemu.process import start_process

LAUNCHER = """
import os, pathlib, subprocess, sys
pathlib.Path("seen").write_bytes(open("/proc/self/environ", "rb").read())
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path("qemu.pid").write_text(str(child.pid))
"""


async def test_a_vmm_learns_nothing_of_the_services_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "secret")

    process = await start_process(
        [sys.executable, "-c", LAUNCHER], tmp_path, messages=MessagePipe(tmp_path)
    )
    async with asyncio.timeout(30):
        await process.kill()

    assert (tmp_path / "seen").read_bytes() == b""


async def test_a_launcher_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(VmFailed, match="no such machine"):
        await start_process(
            [sys.executable, "-c", "import sys; sys.exit('no such machine')"],
            tmp_path,
            messages=MessagePipe(tmp_path),
        )
