"""Much output: all of it arrives, and neither services nor client hold more than a little of it."""

import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest
import structlog

from lns.client.connection.suite_process import find_suite
from tests.support.lns_command import Lns

log = structlog.get_logger()

MIB = 1 << 20
SIZE_MIB = int(os.environ.get("LNS_TEST_OUTPUT_MIB", "128"))
GROWTH_MIB = 64
"""Far less than what passes, more than what memory allocators do on their own."""

WRITES = """
import random, sys
block = random.Random(7).randbytes(1 << 20)
for number in range({size}):
    sys.stdout.buffer.write(number.to_bytes(8, "big") + block[8:])
"""


def expected_digest() -> str:
    block = random.Random(7).randbytes(MIB)  # noqa: S311  # repeatable, not secret
    digest = hashlib.sha256()
    for number in range(SIZE_MIB):
        digest.update(number.to_bytes(8, "big") + block[8:])
    return digest.hexdigest()


def resident_mib(pid: int, name: str) -> int:
    """Returns what a process has in memory (VmRSS), or had at most (VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) >> 10


@pytest.mark.timeout(900)
def test_much_output_arrives_whole_in_little_memory(lns: Lns, image: str) -> None:
    lns.ok("run", "--rm", "-q", image, "--", "true")  # what an image's first run needs is no part
    suite = find_suite(lns.files)
    assert suite is not None
    Path(f"/proc/{suite.pid}/clear_refs").write_text("5")  # proc(5): forget the highest
    before = resident_mib(suite.pid, "VmRSS")

    command = ("python3", "-c", WRITES.format(size=SIZE_MIB))
    with lns.start(
        *("run", "--rm", "-q", image, "--", *command), text=False, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        digest = hashlib.sha256()
        size = early = late = 0
        while data := process.stdout.read(MIB):
            size += len(data)
            digest.update(data)  # type: ignore[arg-type]  # bytes, without text
            if size < SIZE_MIB * MIB:  # then it may be gone
                late = resident_mib(process.pid, "VmHWM")
            early = late if size <= SIZE_MIB * MIB // 8 else early

    assert size == SIZE_MIB * MIB
    assert process.returncode == 0
    assert digest.hexdigest() == expected_digest()
    log.info(
        "much_output",
        mib=SIZE_MIB,
        client_mib=(early, late),
        services_mib=(before, resident_mib(suite.pid, "VmHWM")),
    )
    assert late <= early + GROWTH_MIB // 4
    assert resident_mib(suite.pid, "VmHWM") <= before + GROWTH_MIB
