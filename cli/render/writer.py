"""The one way from here to a terminal for text that is not a workload's own output.

Whatever stands in a line, it cannot steer the terminal: colours and cursor movements are added here
and nowhere else. A test of the architecture forbids other ways.
"""

from typing import TextIO

import click

from services.core.text import printable

_KEPT = "\n\t"
_CLEAR_SCREEN = "\x1b[2J\x1b[H"
_CLEAR_LINE = "\r\x1b[2K"


def write_line(
    line: str, *, mark: str = "", colour: str | None = None, error: bool = False
) -> None:
    """Writes a line to standard output, or to standard error.

    Args:
        line: its text; a JSON or YAML text comes from `to_json` and `to_yaml`, which stay valid.
        mark: stands before the line, in `colour` where the output is a terminal.
        colour: one of click's colours.
        error: whether it goes to standard error.
    """
    before = click.style(printable(mark), fg=colour) if mark else ""
    click.echo(before + printable(line, keep=_KEPT), err=error)


def clear_screen() -> None:
    """Empties the terminal of standard output."""
    click.echo(_CLEAR_SCREEN, nl=False)


class StatusLine:
    """A last line of a terminal that is replaced, and vanishes."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def show(self, text: str) -> None:
        """Writes the line; nothing else is written before `clear`."""
        self._stream.write(printable(text))
        self._stream.flush()

    def clear(self) -> None:
        """Takes the line away."""
        self._stream.write(_CLEAR_LINE)
        self._stream.flush()
