"""Where the time of a run went, for `lns run --timing`."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from lns.vm.v1 import run_pb2

_STARTTIME = 19  # behind the name, proc(5)


def process_age() -> float:
    """Returns seconds since this process was started or forked, to the kernel's tick: 10 ms."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    began = int(fields[_STARTTIME]) / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)


def timing_lines(
    run: run_pb2.Run, spans: Sequence[tuple[str, float]], *, before: float, total: float
) -> Iterator[str]:
    """Yields the lines of the table: steps in their order, in milliseconds. Pure.

    Args:
        run: as it was last seen.
        spans: what the client measured: name and seconds.
        before: seconds until the command began to work.
        total: seconds since the process began.
    """
    times = run.boot_times
    way = f" ({times.way})" if times.way else ""
    own = [("client: start and imports", before), *((f"client: {n}", s) for n, s in spans)]
    machine = [
        (f"machine: had{way}", times.prepare.ToTimedelta().total_seconds()),
        ("machine: answers", times.boot.ToTimedelta().total_seconds()),
        ("machine: configured", times.mount.ToTimedelta().total_seconds()),
        ("machine: program started", times.exec.ToTimedelta().total_seconds()),
    ]
    if run.HasField("end_time") and run.HasField("start_time"):
        ran = run.end_time.ToNanoseconds() - run.start_time.ToNanoseconds()
        machine.append(("machine: program ran", ran / 1e9))
    for name, seconds in (*own, *machine):
        yield f"{name:<28}{seconds * 1000:>9.1f} ms"
    yield f"{'all':<28}{total * 1000:>9.1f} ms"
