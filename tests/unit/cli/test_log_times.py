import pytest

from cli.commands.logs import parse_span, parse_tail, parse_time
from services.core.errors import RequestInvalid

NOW = 1_750_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("500ms", 0.5),
        ("10 minutes ago", 600),
        ("1 hour 30 minutes ago", 5400),
        ("2 hours, 5 min ago", 7500),
        ("1 Day Ago", 86400),
        ("2w", 2 * 7 * 86400),
    ],
)
def test_a_span_is_read_in_words_and_in_gos_form(text: str, seconds: float) -> None:
    assert parse_span(text) == seconds
    assert parse_time(text, now=NOW).ToNanoseconds() == round((NOW - seconds) * 1e9)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("1750000000.5", 1_750_000_000_500_000_000),
        ("2025-01-31T12:00:00Z", 1_738_324_800_000_000_000),
        ("2025-01-31T13:00:00+01:00", 1_738_324_800_000_000_000),
        ("2025-01-31T12:00:00.123456789Z", 1_738_324_800_123_456_000),
    ],
)
def test_a_moment_is_read_as_rfc_3339_or_seconds(text: str, nanoseconds: int) -> None:
    assert parse_time(text, now=NOW).ToNanoseconds() == nanoseconds


@pytest.mark.parametrize("text", ["", "ago", "10 parsecs ago", "5 m s", "soon", "-5m", "1" * 400])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        parse_time(text, now=NOW)


@pytest.mark.parametrize(("text", "lines"), [(None, None), ("all", None), ("0", 0), ("20", 20)])
def test_the_tail_of_a_log_is_a_number_of_lines_or_all(text: str | None, lines: int | None) -> None:
    assert parse_tail(text) == lines


@pytest.mark.parametrize("text", ["", "-1", "some", "1.5", "1" * 30])
def test_what_is_no_number_of_lines_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        parse_tail(text)
