import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.render.text import (
    format_age,
    format_seconds,
    format_size,
    printable,
    short_id,
    shorten,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("zwölf 日本", "zwölf 日本"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("a\rb\nc\td", "a\\rb\\nc\\td"),
        ("gnp\u202eexe", "gnp\\u202eexe"),
        ("a\u0085b\u200bc", "a\\x85b\\u200bc"),
        ("a\u00a0b", "a\u00a0b"),
        ("lone \udc80", "lone \\udc80"),
    ],
)
def test_names_from_strangers_cannot_steer_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_whatever_is_printable_stays_and_the_rest_is_harmless(text: str) -> None:
    shown = printable(text)

    assert "\x1b" not in shown
    assert "\n" not in shown
    shown.encode("utf-8")
    if text.isprintable():
        assert shown == text


def test_newlines_stay_where_they_are_wanted() -> None:
    assert printable("a\nb\x07", keep="\n") == "a\nb\\x07"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0B"),
        (1, "1B"),
        (999, "999B"),
        (1000, "1kB"),
        (1234, "1.23kB"),
        (999_499, "999kB"),
        (999_600, "1MB"),
        (12_345_678, "12.3MB"),
        (5 * 10**9, "5GB"),
        (7 * 10**18, "7e+03PB"),
    ],
)
def test_sizes_have_three_digits(count: int, shown: str) -> None:
    assert format_size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0.0 s"), (0.44, "0.4 s"), (9.94, "9.9 s"), (12.6, "13 s"), (200, "3 min 20 s")],
)
def test_phases_are_as_exact_as_a_person_reads(seconds: float, shown: str) -> None:
    assert format_seconds(seconds) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0 seconds"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (3599, "59 minutes"),
        (3600, "1 hour"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (20 * 86400, "2 weeks"),
        (100 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_ages_have_one_unit(seconds: float, shown: str) -> None:
    assert format_age(seconds) == shown


def test_ids_are_shortened_as_docker_does() -> None:
    assert short_id("sha256:" + "ab" * 32) == "abababababab"
    assert short_id("") == ""


def test_long_cells_are_cut() -> None:
    assert shorten("abcdef", 4) == "abc…"
    assert shorten("abcd", 4) == "abcd"
