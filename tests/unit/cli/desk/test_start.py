"""When a desk is started behind a command, and when not."""

import socket
import subprocess
from pathlib import Path

import pytest

from cli.desk import start as starting
from cli.desk.launcher import desk_socket


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines that were started."""
    lines: list[list[str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda line, **_: lines.append(line))
    return lines


def a_home(path: Path) -> str:
    (path / "run").mkdir(parents=True)
    (path / "run" / "suite.version").write_text("1 0.1.0")
    return str(path)


def test_a_desk_is_started_beside_a_suite(short_directory: Path, started: list[list[str]]) -> None:
    starting.start(a_home(short_directory / "home"), {})

    assert [line[-1] for line in started] == [str(short_directory / "home")]


def test_none_is_started_without_a_suite(short_directory: Path, started: list[list[str]]) -> None:
    starting.start(str(short_directory), {})

    assert started == []


def test_none_is_started_beside_one_that_answers_and_one_where_it_was_killed(
    short_directory: Path, started: list[list[str]]
) -> None:
    home = a_home(short_directory / "home")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(desk_socket(home))
        listener.listen()
        starting.start(home, {})
        assert started == []

    starting.start(home, {})
    assert len(started) == 1


def test_none_is_started_where_its_socket_could_not_be_reached(
    short_directory: Path, started: list[list[str]]
) -> None:
    starting.start(a_home(short_directory / ("x" * 120)), {})

    assert started == []
