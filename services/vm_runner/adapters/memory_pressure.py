"""Whether the host's memory is short, as the kernel tells it: pressure stall information.

Format: the kernel's Documentation/accounting/psi.rst.
"""

import contextlib
from pathlib import Path

_PSI = Path("/proc/pressure/memory")
_MEMINFO = Path("/proc/meminfo")
_STALLED_PERCENT = 5.0
_AVAILABLE_SHARE = 0.1


def is_memory_tight(psi: Path = _PSI, meminfo: Path = _MEMINFO) -> bool:
    """Returns whether something waited for memory of late, or next to nothing is available."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        some = psi.read_text().splitlines()[0].split()
        if float(some[1].removeprefix("avg10=")) > _STALLED_PERCENT:
            return True
    with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
        numbers = {
            line.split()[0]: int(line.split()[1]) for line in meminfo.read_text().splitlines()
        }
        return numbers["MemAvailable:"] < numbers["MemTotal:"] * _AVAILABLE_SHARE
    return False
