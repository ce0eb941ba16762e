"""What work costs: of a command with its children, or of a service process with its workers."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.benchmarks.harness import Sample, Unavailable

_LAUNCH = Path(__file__).with_name("launch.py")
_TICKS = os.sysconf("SC_CLK_TCK")
_RESET_PEAK = "5"
"""What `/proc/PID/clear_refs` takes for "the peak is what is resident now" (Linux 4.0)."""


class CommandFailed(Exception):
    """A measured command failed; the message has the end of what it said."""


def run_command(
    arguments: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600,
    expected: int = 0,
) -> Sample:
    """Runs a command to its end and returns what it cost, with all children that it waited for.

    The memory is the peak of the largest of these processes.

    Args:
        arguments: the command.
        environment: variables that are set beside those of this process.
        timeout: seconds.
        expected: its exit code.

    Raises:
        CommandFailed: it ended with another code.
        Unavailable: there is no such command.
    """
    if shutil.which(str(arguments[0])) is None:
        raise Unavailable(f"{arguments[0]} is not installed")
    with tempfile.NamedTemporaryFile("r") as report, tempfile.TemporaryFile() as output:
        done = subprocess.run(
            [sys.executable, "-I", "-S", _LAUNCH, report.name, *arguments],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=timeout,
            check=False,
        )
        if done.returncode != expected:
            output.seek(0)
            tail = output.read().decode(errors="replace")[-2000:].strip()
            raise CommandFailed(f"{arguments[0]} ended with {done.returncode}: {tail}")
        wall, cpu, memory = json.load(report)
    return Sample(wall=wall, cpu=cpu, bytes=memory)


def measured_services(processes: Sequence[int], work: Callable[[], object]) -> Sample:
    """Has services do some work and returns what it cost them, with their children.

    The memory is the sum of the peaks of all these processes: at most so much at one time.

    Args:
        processes: ids of the services' processes.
        work: asks them for it, and waits.
    """
    everybody = [pid for root in processes for pid in iter_tree(root)]
    for pid in everybody:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)
    before = sum(cpu_seconds(root) for root in processes)
    begin = time.perf_counter()
    work()
    wall = time.perf_counter() - begin
    cpu = sum(cpu_seconds(root) for root in processes) - before
    everybody = [pid for root in processes for pid in iter_tree(root)]
    return Sample(wall=wall, cpu=cpu, bytes=sum(map(peak_bytes, everybody)))


def iter_tree(root: int) -> Iterator[int]:
    """Yields a process and all that descend from it."""
    yield root
    for task in Path(f"/proc/{root}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                yield from iter_tree(int(child))


def cpu_seconds(root: int) -> float:
    """Returns the processor time of a process and its descendants, dead ones included."""
    return sum(map(_ticks, iter_tree(root))) / _TICKS


def peak_bytes(pid: int) -> int:
    """Returns the most memory that was resident at a time; 0 for a process that is gone."""
    return _memory(f"/proc/{pid}/status", "VmHWM")


def shared_out_bytes(pid: int) -> int:
    """Returns the memory of a process, what it shares counted in part (PSS)."""
    return _memory(f"/proc/{pid}/smaps_rollup", "Pss")


def _memory(path: str, name: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(path).read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(fields[i]) for i in (11, 12, 13, 14))  # user, system, those of dead children
