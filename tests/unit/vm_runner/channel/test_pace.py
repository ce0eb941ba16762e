"""A guest gets its share of the service's time, and no more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vm_runner.channel.pace import Pace


def test_a_guest_that_takes_little_never_waits() -> None:
    pace = Pace(0.0)

    assert all(pace.spend(0.0001, now=n * 0.001) == 0 for n in range(10_000))


def test_a_flood_waits_until_it_has_taken_no_more_than_its_share() -> None:
    pace = Pace(0.0)
    now = worked = 0.0
    while now < 10:
        worked += 0.01
        now += 0.01 + pace.spend(0.01, now=now + 0.01)

    assert worked == pytest.approx(10 * 0.25, rel=0.05)


def test_idle_time_is_not_saved_up() -> None:
    pace = Pace(0.0)
    pace.spend(0.0, now=3600.0)

    assert pace.spend(1.0, now=3600.0) > 3.5


@given(st.lists(st.tuples(st.floats(0, 0.1), st.floats(0, 1)), max_size=100))
def test_a_wait_is_never_negative_and_pays_what_is_owed(steps: list[tuple[float, float]]) -> None:
    pace = Pace(0.0)
    now = 0.0
    for cost, passed in steps:
        now += passed
        wait = pace.spend(cost, now=now)
        assert wait >= 0
        now += wait
        assert pace.spend(0.0, now=now) == pytest.approx(0, abs=1e-9)


def test_bulk_data_is_looked_at_in_larger_slices_and_a_flood_is_not() -> None:
    pace = Pace(0.0)
    first = pace.slice_bytes
    for n in range(10):
        pace.spend(0.0001, now=n * 0.001)
    bulk = pace.slice_bytes
    pace.spend(0.02, now=1.0)

    assert (first, bulk, pace.slice_bytes) == (32768, 8 * 32768, 32768)
