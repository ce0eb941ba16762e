"""When requests are tried again, how long is waited, and where they are sent."""

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry_gateway.adapters.registry.exchange import RetryPolicy, parse_retry_after

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("9" * 400, None),
        (email.utils.formatdate(NOW + 30, usegmt=True), 30.0),
        (email.utils.formatdate(NOW - 30, usegmt=True), 0.0),
        ("Mon, 99 Foo 2020 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, expected: float | None) -> None:
    assert parse_retry_after(text, NOW) == expected


@given(st.text(max_size=40))
def test_any_retry_after_is_a_time_or_nothing(text: str) -> None:
    asked = parse_retry_after(text, NOW)
    assert asked is None or asked >= 0


@given(
    attempt=st.integers(min_value=0, max_value=20),
    chance=st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_pauses_grow_with_jitter_up_to_the_longest(attempt: int, chance: float) -> None:
    policy = RetryPolicy()

    pause = policy.pause(attempt, None, chance)

    assert 0 <= pause <= min(policy.longest, policy.base * 2**attempt)


@given(asked=st.floats(min_value=0, max_value=100), chance=st.floats(min_value=0, max_value=0.99))
def test_a_pause_that_was_asked_for_is_never_cut_short(asked: float, chance: float) -> None:
    assert asked <= RetryPolicy().pause(3, asked, chance) <= asked + 1.0
