import pytest

from cli.catalogue import ENTRIES
from cli.suggestions import suggestion


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ("rn", "did you mean `lns run`"),
        ("strat", "`lns start`"),
        ("exce", "`lns exec`"),
        ("LOGS", "`lns logs`"),
        ("images", "lns image ls"),
        ("rmi", "lns image rm"),
        ("unpause", "lns resume"),
        ("vol", "`lns volume`"),
    ],
)
def test_a_command_that_does_not_exist_is_answered_with_the_one_that_was_meant(
    wrong: str, expected: str
) -> None:
    assert expected in suggestion(wrong, ENTRIES, path="lns")


@pytest.mark.parametrize("wrong", ["xyzzy", "", "\x1b[31m"])
def test_what_is_like_nothing_gets_no_suggestion(wrong: str) -> None:
    assert suggestion(wrong, [name for name in ENTRIES if wrong], path="lns") == ""


def test_the_words_of_others_are_meant_at_the_top_only() -> None:
    assert suggestion("images", ["ls", "rm"], path="lns image") == ""
