import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chassis.settings_values import (
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("1.5s", 1.5), ("5m", 300), ("2h", 7200), ("7d", 604800)],
)
def test_a_duration_has_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "s", "-1s", "1 s", "1S", "1w", "1h30m", "infs", "1e3s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0B", 0), ("100B", 100), ("512KiB", 524288), ("4GiB", 4 << 30), ("1TiB", 1 << 40)],
)
def test_a_size_has_a_binary_unit(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "1", "1kB", "1MB", "1.5GiB", "-1B", "1 MiB", "9" * 16 + "B"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@given(st.integers(0, 10**14))
def test_a_size_reads_back(count: int) -> None:
    assert parse_size(format_size(count)) == count


@given(st.integers(0, 10**9).map(lambda ms: ms / 1000))
def test_a_duration_reads_back(seconds: float) -> None:
    assert math.isclose(parse_duration(format_duration(seconds)), seconds, abs_tol=1e-9)
