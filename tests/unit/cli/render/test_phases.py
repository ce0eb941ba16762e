import pytest

from cli.render.phases import Phases


def test_phases_are_shown_in_order_with_their_times() -> None:
    ticks = iter([0.0, 0.1, 1.0, 2.2])
    phases = Phases(clock=lambda: next(ticks))

    with phases.measure("resolved"):
        pass
    with phases.measure("pulled"):
        pass
    phases.add("started", 0.34)

    assert phases.line() == "resolved 0.1 s · pulled 1.2 s · started 0.3 s"


def test_a_phase_that_failed_is_not_shown() -> None:
    phases = Phases()
    with pytest.raises(RuntimeError), phases.measure("pulled"):
        raise RuntimeError

    assert phases.line() == ""
