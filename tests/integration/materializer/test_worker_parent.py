"""A materializer that is pid 1, as in a container, has workers like any other."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

ONE_JOB = """
import asyncio
from services.core.errors import Internal
from pathlib import Path
from services.materializer.adapters.workers import Ground, Workers

async def main():
    async with Workers(1, Ground(write=[Path.cwd()])) as workers:
        try:
            await workers.run("no such job", {})
        except Internal as error:
            print(error.message)

asyncio.run(main())
"""


@pytest.mark.parametrize("as_pid_1", [False, True])
def test_a_worker_answers(as_pid_1: bool) -> None:
    command = [sys.executable, "-c", ONE_JOB]
    if as_pid_1:
        unshare = shutil.which("unshare")
        assert unshare is not None
        rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        command = [unshare, *rights, "--pid", "--fork", *command]

    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )

    assert result.stdout == "the materializer's worker failed: KeyError('no such job')\n", result


def test_a_worker_ends_at_once_when_its_parent_is_gone_already() -> None:
    job = b'{"job": "no such job"}\n'

    result = subprocess.run(
        [sys.executable, "-m", "services.materializer.worker", "--parent=4194305", "--write=/"],
        cwd=ROOT,
        input=job,
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert (result.returncode, result.stdout) == (0, b"")
