"""What must be known of a terminal's screen to draw on it and give it back. Pure."""

import re
from typing import Final

ENTER: Final = b"\x1b[?1049h"
LEAVE: Final = b"\x1b[?1049l"
_MODES = re.compile(rb"\x1b\[\?(?:[0-9;]*;)?(1049|1047|47)(?:;[0-9;]*)?([hl])")
_CUT_MOST = 32
_EMPTY = b"\x1b[0m\x1b[2J\x1b[H"
"""In the terminal's own colours, whatever the program had chosen."""


class Screen:
    """Follows a program's output as far as it says which of the terminal's two screens it uses."""

    def __init__(self) -> None:
        self.is_alternate = False
        self._cut = b""

    def feed(self, data: bytes) -> None:
        """Takes the next output; a sequence may be cut anywhere."""
        data = self._cut + data
        end = 0
        for found in _MODES.finditer(data):
            self.is_alternate = found[2] == b"h"
            end = found.end()
        begun = data.rfind(b"\x1b", max(end, len(data) - _CUT_MOST))
        self._cut = data[begun:] if begun >= 0 else b""

    def open(self) -> bytes:
        """Returns what gives an empty screen to draw on.

        A program that has the alternate screen loses what stands there: it has to draw again.
        """
        return _EMPTY if self.is_alternate else ENTER + _EMPTY

    def close(self) -> bytes:
        """Returns what gives the screen back."""
        return b"\x1b[2J\x1b[H" if self.is_alternate else LEAVE
