"""Signals of Linux by name and number, as Docker and `kill` write them."""

import re
import signal
from typing import Final

FIRST_REAL_TIME: Final = 34
"""`SIGRTMIN` of programs built with a C library, which keeps the first ones to itself."""

LAST: Final = 64

_NUMBER = re.compile(r"[0-9]{1,2}", re.ASCII)
_REAL_TIME = re.compile(r"RT(?:MIN(?:\+([0-9]{1,2}))?|MAX(?:-([0-9]{1,2}))?)", re.ASCII)


def parse_signal(text: str) -> int | None:
    """Returns the number of `TERM`, `SIGTERM`, `15`, `RTMIN+3` or `RTMAX-1`, in any case.

    None if Linux has no such signal.
    """
    name = text.strip().upper().removeprefix("SIG")
    number = 0
    if known := signal.Signals.__members__.get(f"SIG{name}"):
        number = known.value
    elif _NUMBER.fullmatch(name):
        number = int(name)
    elif match := _REAL_TIME.fullmatch(name):
        from_last = name.startswith("RTMAX")
        number = LAST - int(match[2] or 0) if from_last else FIRST_REAL_TIME + int(match[1] or 0)
        number = number if number >= FIRST_REAL_TIME else 0
    return number if 1 <= number <= LAST else None


def signal_name(number: int) -> str:
    """Returns the name of a signal without `SIG`."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:
        return f"RTMIN+{number - FIRST_REAL_TIME}" if number > FIRST_REAL_TIME else str(number)
