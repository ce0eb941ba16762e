"""The one way from here to a terminal for text that is not a workload's own output.

Whatever stands in a line, it cannot steer the terminal: colours and cursor movements are added here
and nowhere else. A test of the architecture forbids other ways.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TextIO

import click

from services.core.text import printable

_KEPT = "\n\t"
_CLEAR_SCREEN = "\x1b[2J\x1b[H"
_CLEAR_LINE = "\r\x1b[2K"
_ENTER_SCREEN = "\x1b[?1049h\x1b[?25l"
_LEAVE_SCREEN = "\x1b[?25h\x1b[?1049l"
_NEXT_LINE = "\x1b[K\r\n"
_CLEAR_REST = "\x1b[K\x1b[J"


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


@contextlib.contextmanager
def full_screen() -> Iterator[None]:
    """Gives the block a screen of its own; afterwards the terminal shows what it did before."""
    click.echo(_ENTER_SCREEN, nl=False)
    try:
        yield
    finally:
        click.echo(_LEAVE_SCREEN, nl=False)


def show_screen(lines: Sequence[str]) -> None:
    """Replaces what a full screen shows; lines are no longer than it is wide, and no more fit."""
    text = _NEXT_LINE.join(printable(line) for line in lines)
    click.echo(f"\x1b[H{text}{_CLEAR_REST}", nl=False)


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
