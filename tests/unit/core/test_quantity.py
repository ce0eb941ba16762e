import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.errors import RequestInvalid
from services.core.quantity import parse_cpus, parse_mebibytes


@pytest.mark.parametrize(
    ("quantity", "millis"),
    [
        (2, 2000),
        (0.5, 500),
        (1.0, 1000),
        (1e-3, 1),
        ("2", 2000),
        ("0.5", 500),
        ("1500m", 1500),
        ("1m", 1),
        (" 2 ", 2000),
        ("0.001", 1),
        (1024, 1_024_000),
    ],
)
def test_cpus_are_read_in_every_form(quantity: str | float, millis: int) -> None:
    assert parse_cpus(quantity) == millis


@pytest.mark.parametrize(
    "quantity",
    [0, "0", "0m", 0.0, -1, "-1", "", "two", "1.5.0", "1500M", "0.0001", "0.5m", 1025, "1e3",
     float("nan"), float("inf"), True, "٣", "1_000", "9" * 100],
)  # fmt: skip
def test_cpus_that_are_invalid_are_refused_with_the_way_out(quantity: str | float) -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_cpus(quantity)

    assert caught.value.hint


@pytest.mark.parametrize(
    ("quantity", "mebibytes"),
    [
        (3072, 3072),
        ("3072", 3072),
        ("3g", 3072),
        ("3G", 3072),
        ("3Gi", 3072),
        ("3GiB", 3072),
        ("3gb", 3072),
        ("3072Mi", 3072),
        ("512m", 512),
        ("1.5g", 1536),
        ("1t", 1024 * 1024),
        ("1k", 1),
        ("1025k", 2),
        (0.2, 1),
        (1e3, 1000),
    ],
)
def test_memory_is_read_in_every_form_and_rounded_up(quantity: str | float, mebibytes: int) -> None:
    assert parse_mebibytes(quantity) == mebibytes


@pytest.mark.parametrize(
    "quantity",
    [0, "0", "0g", -5, "-5m", "", "g", "3 g", "3x", "3gi b", "1e3", "17t", 1e300, float("inf"),
     "0x10", True],
)  # fmt: skip
def test_memory_that_is_invalid_is_refused_with_the_way_out(quantity: str | float) -> None:
    with pytest.raises(RequestInvalid) as caught:
        parse_mebibytes(quantity)

    assert caught.value.hint


def test_a_minimum_is_named() -> None:
    with pytest.raises(RequestInvalid, match="at least 64 MiB"):
        parse_mebibytes("63m", minimum=64)


@given(st.text(max_size=30) | st.floats() | st.integers())
def test_any_value_is_a_quantity_or_refused(quantity: str | float) -> None:
    for parse in (parse_cpus, parse_mebibytes):
        with contextlib.suppress(RequestInvalid):
            assert parse(quantity) >= 1


@given(st.integers(min_value=1, max_value=1_024_000))
def test_thousandths_survive_all_their_spellings(millis: int) -> None:
    whole, part = divmod(millis, 1000)

    assert parse_cpus(f"{millis}m") == parse_cpus(f"{whole}.{part:03}") == millis
