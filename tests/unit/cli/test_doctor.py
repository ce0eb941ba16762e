"""Where others can write, they can exchange what runs: doctor names it."""

from pathlib import Path

import pytest

from cli.commands.doctor import state_check


@pytest.mark.parametrize(
    ("mode", "verdict"),
    [(0o700, "ok"), (0o755, "ok"), (0o770, "warning"), (0o757, "warning"), (0o1777, "warning")],
)
def test_a_state_directory_that_others_can_write_is_named(
    tmp_path: Path, mode: int, verdict: str
) -> None:
    home = tmp_path / "state"
    home.mkdir()
    home.chmod(mode)

    check = state_check(home)

    assert check["verdict"] == verdict
    assert str(home) in check["detail"]
    assert bool(check["remedy"]) == (verdict == "warning")


def test_a_directory_above_it_counts_as_it_does(tmp_path: Path) -> None:
    above = tmp_path / "shared"
    above.mkdir()
    above.chmod(0o777)

    check = state_check(above / "state")

    assert check["verdict"] == "warning"
    assert f"{above} can be written by others" in check["detail"]
    above.chmod(0o1777)  # as /tmp is: others cannot exchange what is ours there
    assert state_check(above / "state")["verdict"] == "ok"
