import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.signals import parse_signal, signal_name


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigterm", 15),
        (" QUIT ", 3),
        ("9", 9),
        ("SIG9", 9),
        ("RTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("rtmin+30", 64),
        ("RTMAX", 64),
        ("SIGRTMAX-1", 63),
        ("64", 64),
        ("CLD", 17),
        ("POLL", 29),
    ],
)
def test_a_signal_is_known_by_name_and_number(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SIG",
        "0",
        "65",
        "99",
        "-1",
        "FOO",
        "RTMIN+31",
        "RTMIN-1",
        "RTMAX-31",
        "RTMAX+1",
        "٣",
        "1 5",
    ],
)
def test_what_is_no_signal_gives_none(text: str) -> None:
    assert parse_signal(text) is None


@given(number=st.integers(1, 64))
def test_the_name_of_a_signal_is_read_back(number: int) -> None:
    assert parse_signal(signal_name(number)) == number
