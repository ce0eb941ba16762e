"""The phases of a start, and what a guest may claim of them."""

import time
from datetime import timedelta

import pytest

from services.vm_runner.channel.events import Welcome
from services.vm_runner.life.boot_clock import BootClock
from services.vm_runner.records.runs import BootTimes

SECOND = 10**9


def timed(monkeypatch: pytest.MonkeyPatch, welcome: Welcome | None) -> BootTimes:
    """A start whose phases take 1, 2, 3 and 4 seconds."""
    moments = iter((100.0, 101.0, 103.0, 106.0, 110.0))
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: next(moments))
        clock = BootClock()
        clock.machine_started()
        clock.guest_greeted()
        clock.root_mounted()
        return clock.workload_started(welcome)


def a_welcome(*boot_ns: int) -> Welcome:
    return Welcome(version=1, agent="1", configured=False, highest_id=0, boot_ns=boot_ns)


def seconds(times: BootTimes) -> dict[str, float]:
    return {
        name: span.total_seconds()
        for name in ("prepare", "boot", "kernel", "devices", "mount", "exec")
        if (span := getattr(times, name)) != timedelta()
    }


def test_each_phase_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = timed(monkeypatch, a_welcome(SECOND // 2, SECOND, 3 * SECOND // 2))

    assert seconds(times) == {
        "prepare": 1, "boot": 2, "kernel": 0.5, "devices": 1, "mount": 3, "exec": 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("welcome", "claimed"),
    [
        (None, {}),
        (a_welcome(), {}),
        (a_welcome(SECOND), {}),
        (a_welcome(*[SECOND] * 4), {}),
        (a_welcome(2**64 - 1, 2**64 - 1, 2**64 - 1), {"kernel": 2}),
        (a_welcome(SECOND, 0, 2**64 - 1), {"kernel": 1, "devices": 1}),
        (a_welcome(SECOND, SECOND, 0), {"kernel": 1}),
    ],
)
def test_a_guest_claims_no_more_time_than_it_had(
    monkeypatch: pytest.MonkeyPatch, welcome: Welcome | None, claimed: dict[str, float]
) -> None:
    phases = {"prepare": 1, "boot": 2, "mount": 3, "exec": 4}

    assert seconds(timed(monkeypatch, welcome)) == phases | claimed
