"""The screen of `lns top`."""

from typing import Any

import pytest

from cli.render.overview import HELP, Overview, screen_lines


def row(name: str, percent: float = 0.0, **fields: Any) -> dict[str, Any]:
    return {
        "name": name,
        "state": "running",
        "cpu": f"{percent:.1f}%",
        "cpu_percent": percent,
        "memory": "80MB / 512MB",
        "disk": "4MB",
        "channel": "0B / 0B",
        "pids": 3,
        "command": "sleep 60",
        **fields,
    }


def lines(shown: Overview, rows: int = 24, width: int = 100, keys: bool = True) -> list[str]:
    return screen_lines(shown, rows=rows, width=width, keys=keys)


def test_the_busiest_run_is_first() -> None:
    shown = lines(Overview(runs=[row("idle", -1), row("busy", 90), row("calm", 5)]))

    assert [line.split()[0] for line in shown[3:6]] == ["busy", "calm", "idle"]


def test_what_is_waited_for_is_shown_with_the_keys_that_answer() -> None:
    shown = lines(Overview(runs=[row("a")], requests=["a: api.example.com:443"]))

    assert "  a: api.example.com:443" in shown
    assert shown[-1] == HELP


def test_what_a_key_did_takes_the_place_of_the_keys() -> None:
    assert lines(Overview(runs=[], message="done"))[-1] == "done"


@pytest.mark.parametrize("rows", [6, 8, 12, 24])
@pytest.mark.parametrize("requests", [0, 3])
def test_no_screen_has_more_lines_than_fit(rows: int, requests: int) -> None:
    shown = Overview(runs=[row(f"run-{number}") for number in range(30)], requests=["x"] * requests)

    assert len(lines(shown, rows=rows)) <= rows
    assert all(len(line) <= 40 for line in lines(shown, rows=rows, width=40))


def test_runs_that_do_not_fit_are_counted() -> None:
    shown = lines(Overview(runs=[row(f"run-{number:02}") for number in range(30)]), rows=10)

    named = sum(line.startswith("run-") for line in shown)
    assert f"… and {30 - named} more" in shown


def test_a_name_cannot_steer_the_terminal() -> None:
    shown = lines(Overview(runs=[row("a\x1b[2J")], requests=["\x9b31m"]))

    assert not {"\x1b", "\x9b"} & set("".join(shown))
