"""A profile on demand: a thread looks at what the others do, a hundred times a second.

Nothing is slowed down while nobody asks, and no program is changed for it. A look counts for the
threads that have used a processor since the one before; what they did in C counts for the function
that called it.
"""

import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

LONGEST_SECONDS: Final = 60
_PAUSE_SECONDS: Final = 0.01
_DEEPEST: Final = 100
_STACKS_MOST: Final = 2_000
_THREADS: Final = Path("/proc/self/task")

Stack = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What was seen.

    Attributes:
        stacks: chains of calls, `module:function`, the outermost first, with how often.
        looks: how often the process was looked at.
    """

    stacks: tuple[tuple[Stack, int], ...]
    looks: int


def sample(seconds: float, *, stop: threading.Event) -> Profile:
    """Looks at all other threads of this process for some time.

    Args:
        seconds: for how long.
        stop: ends it early.
    """
    own, counts, looks = threading.get_ident(), Counter[Stack](), 0
    used: dict[int, int] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end and not stop.wait(_PAUSE_SECONDS):
        looks += 1
        # The functions first: asking for the time that was used lets others go on.
        frames = {thread: _stack(frame) for thread, frame in sys._current_frames().items()}  # noqa: SLF001 - the documented way
        before, used = used, _processor_times()
        for thread, stack in frames.items():
            if thread != own and used.get(thread, 0) > before.get(thread, used.get(thread, 0)):
                # What comes after so many is counted by its innermost function alone.
                is_known = stack in counts or len(counts) < _STACKS_MOST
                counts[stack if is_known else stack[-1:]] += 1
    return Profile(stacks=tuple(counts.most_common()), looks=looks)


def _processor_times() -> dict[int, int]:
    """Returns the nanoseconds of processor that each thread has used, as far as that is known."""
    found = {}
    for thread in threading.enumerate():
        try:
            text = (_THREADS / str(thread.native_id) / "schedstat").read_text()
            found[thread.ident or 0] = int(text.split()[0])
        except (OSError, ValueError, IndexError):
            continue  # it has ended, or the kernel does not count
    return found


def _stack(frame: FrameType | None) -> Stack:
    names: list[str] = []
    while frame is not None and len(names) < _DEEPEST:
        names.append(f"{frame.f_globals.get('__name__', '?')}:{frame.f_code.co_qualname}")
        frame = frame.f_back
    return tuple(reversed(names))
