"""This process's terminal while a run is attached."""

import os
import pty
import termios
from collections.abc import Iterator

import pytest

from cli.run import console
from cli.run.console import open_console


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal in the place of this process's own."""
    user, ours = pty.openpty()
    monkeypatch.setattr(console, "STDIN", ours)
    monkeypatch.setattr(console, "STDOUT", ours)
    yield ours
    os.close(user)
    os.close(ours)


@pytest.mark.parametrize(
    ("stdin", "tty", "is_raw"),
    [
        pytest.param(True, True, True, id="-it: every key goes to the program"),
        pytest.param(True, False, False, id="-i: typed letters are shown, Control-C ends"),
        pytest.param(False, True, False, id="-t: nothing is read"),
        pytest.param(False, False, False, id="neither"),
    ],
)
async def test_the_terminal_is_raw_only_for_a_program_that_reads_keys(
    terminal: int, stdin: bool, tty: bool, is_raw: bool
) -> None:
    before = termios.tcgetattr(terminal)

    async with open_console(stdin=stdin, tty=tty, detach_keys=b"\x10\x11"):
        inside = termios.tcgetattr(terminal)

    assert (not inside[3] & (termios.ECHO | termios.ICANON | termios.ISIG)) is is_raw
    assert is_raw or inside == before
    assert termios.tcgetattr(terminal) == before
