"""Whether the memory of a microVM holds something, looked for from the host."""

import re
from pathlib import Path

_STEP = 1 << 22


def memory_holds(pid: int, *wanted: bytes) -> bool:
    """Says whether the memory of a VMM, its guest's included, holds any of some bytes."""
    longest = max(map(len, wanted))
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for begin, end in _resident(pid):
            before = b""
            for at in range(begin, end, _STEP):
                try:
                    memory.seek(at)
                    piece = memory.read(min(_STEP, end - at))
                except (OSError, OverflowError):
                    break
                both = before + piece
                if any(one in both for one in wanted):
                    return True
                before = piece[-longest:]
    return False


def _resident(pid: int) -> list[tuple[int, int]]:
    """Returns the parts of a process's address space that have a page in memory."""
    found = []
    begin = end = 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line):
            begin, end = int(match[1], 16), int(match[2], 16)
        elif re.match(r"[0-9a-f]+-", line):
            begin = end = 0
        elif line.startswith("Rss:") and line.split()[1] != "0" and end:
            found.append((begin, end))
    return found
