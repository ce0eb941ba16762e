import pytest

from services.core.run_plan import Healthcheck
from services.vm_runner.life.health import Check, judged, pause
from services.vm_runner.records.runs import Health, HealthStatus

STARTING, HEALTHY, UNHEALTHY = HealthStatus
RULES = Healthcheck(argv=("c",), interval=30, start_period=60, start_interval=5, retries=3)


@pytest.mark.parametrize(
    ("status", "streak", "code", "seconds_up", "expected"),
    [
        (STARTING, 0, 0, 1, (HEALTHY, 0)),
        (STARTING, 0, 1, 1, (STARTING, 0)),  # in the start period failures do not count
        (STARTING, 0, 1, 61, (STARTING, 1)),
        (STARTING, 2, 1, 61, (UNHEALTHY, 3)),
        (HEALTHY, 0, 1, 1, (HEALTHY, 1)),  # a success ends the start period
        (HEALTHY, 1, 1, 99, (HEALTHY, 2)),
        (HEALTHY, 2, 137, 99, (UNHEALTHY, 3)),
        (HEALTHY, 2, -1, 99, (UNHEALTHY, 3)),
        (HEALTHY, 2, 0, 99, (HEALTHY, 0)),
        (UNHEALTHY, 3, 1, 99, (UNHEALTHY, 4)),
        (UNHEALTHY, 9, 0, 99, (HEALTHY, 0)),
    ],
)
def test_what_a_check_says_of_the_health(
    status: HealthStatus,
    streak: int,
    code: int,
    seconds_up: float,
    expected: tuple[HealthStatus, int],
) -> None:
    before = Health(status=status, failing_streak=streak)

    after = judged(before, Check(exit_code=code, output="said"), RULES, seconds_up=seconds_up)

    assert (after.status, after.failing_streak) == expected
    assert (after.exit_code, after.output) == ((code, "said") if code else (0, ""))


@pytest.mark.parametrize(
    ("status", "seconds_up", "seconds"),
    [(STARTING, 0, 5), (STARTING, 60, 30), (HEALTHY, 0, 30), (UNHEALTHY, 99, 30)],
)
def test_checks_are_closer_together_until_the_first_success(
    status: HealthStatus, seconds_up: float, seconds: float
) -> None:
    assert pause(Health(status=status), RULES, seconds_up=seconds_up) == seconds
