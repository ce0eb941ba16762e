"""Which of a terminal's two screens a program uses, and how the question gives it back."""

import pytest

from cli.run.screen import ENTER, LEAVE, Screen


@pytest.mark.parametrize(
    ("output", "alternate"),
    [
        (b"plain text\n", False),
        (b"\x1b[?1049h full", True),
        (b"\x1b[?1049h\x1b[?1049l", False),
        (b"\x1b[?47h", True),
        (b"\x1b[?1;1049h", True),
        (b"\x1b[?25h\x1b[?2004h", False),
    ],
)
def test_a_screen_is_known_by_what_the_program_said(output: bytes, alternate: bool) -> None:
    screen = Screen()
    screen.feed(output)
    assert screen.is_alternate is alternate


def test_a_sequence_may_be_cut_anywhere() -> None:
    whole = b"text\x1b[?1049hmore\x1b[?1049lend\x1b[?1049h"
    for at in range(len(whole) + 1):
        screen = Screen()
        screen.feed(whole[:at])
        screen.feed(whole[at:])
        assert screen.is_alternate, at


def test_the_ordinary_screen_is_given_back_by_the_terminal() -> None:
    screen = Screen()
    assert screen.open().startswith(ENTER)
    assert screen.close() == LEAVE


def test_the_alternate_screen_is_left_to_the_program_to_draw() -> None:
    screen = Screen()
    screen.feed(ENTER)
    assert ENTER not in screen.open()
    assert LEAVE not in screen.close()
