"""What a command says to the desk, and when it does not ask it."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.desk import launcher, order
from services.chassis.settings import state_directory

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@pytest.mark.parametrize(
    "environment",
    [
        {"HOME": "/home/u"},
        {"HOME": "/home/u", "XDG_STATE_HOME": "/s"},
        {"HOME": "/home/u", "XDG_STATE_HOME": "relative"},
        {"HOME": "/home/u", "LNS_HOME": "/own", "XDG_STATE_HOME": "/s"},
        {"HOME": "/home/u", "LNS_HOME": "relative/path"},
        {"HOME": "/home/u", "LNS_HOME": ""},
        {},
    ],
)
def test_the_launcher_finds_the_state_directory_that_commands_find(
    environment: Mapping[str, str],
) -> None:
    assert Path(launcher.state_directory(environment)) == state_directory(environment)


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["ps"], {}, True),
        (["run", "image", "--", "sh", "-it"], {}, True),
        (["ps"], {"LNS_DESK": "off"}, False),
        ([], {}, False),
        (["service", "stop"], {}, False),
        (["push", "/dev/fd/63", "ref"], {}, False),
        (["validate", "/dev/stdin"], {}, False),
        (["run", "--env-file", "/proc/self/fd/5", "image"], {}, False),
    ],
)
def test_what_only_this_process_can_do_is_done_in_place(
    arguments: list[str], environment: dict[str, str], expected: bool
) -> None:
    assert launcher.is_for_desk(arguments, environment) is expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "image"], True),
        (["run", "-it", "image"], False),
        (["run", "-di", "image"], False),
        (["exec", "-t", "run", "sh"], False),
        (["run", "--interactive", "image"], False),
        (["attach", "run"], False),
        (["run", "image", "--", "tail", "-t"], True),
        (["ps", "--format", "json"], True),
    ],
)
def test_who_talks_to_a_terminal_stays_in_its_session(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: bool
) -> None:
    monkeypatch.setattr(launcher, "_is_terminal", lambda _: True)
    monkeypatch.setattr(launcher, "_is_in_background", lambda: False)

    assert launcher.is_for_desk(arguments, {}) is expected


@given(
    arguments=st.lists(TEXTS, max_size=5),
    environment=st.dictionaries(TEXTS.filter(lambda name: name and "=" not in name), TEXTS),
)
def test_a_command_arrives_as_it_was_sent(
    arguments: list[str], environment: dict[str, str]
) -> None:
    message = launcher.encode(arguments, environment)
    size = int.from_bytes(message[:4], "little")
    found = order.parse(message[4:], (5, 6, 7, 8))

    assert size == len(message) - 4
    assert found is not None
    assert (list(found.arguments), found.environment) == (arguments, environment)
    assert found.surroundings == launcher.surroundings(environment)
    before = os.umask(0)
    os.umask(before)
    assert found.umask == before


@given(st.binary(max_size=100))
def test_whatever_else_arrives_is_no_command_or_one_of_its_own_words(data: bytes) -> None:
    found = order.parse(data, ())

    assert found is None or all(os.fsencode(word) in data for word in found.arguments)


@pytest.mark.parametrize(
    "message",
    [b"", b"a", b"s\0x\0\0" + b"0", b"s\00\0\0-1", b"s\00\0\05\0one", b"s\00\0one\00"],
)
def test_a_message_that_is_not_whole_is_no_command(message: bytes) -> None:
    assert order.parse(message, ()) is None


def test_another_interpreter_or_locale_is_another_desk_s(monkeypatch: pytest.MonkeyPatch) -> None:
    here = launcher.surroundings({"LANG": "C.UTF-8", "HOME": "/a"})
    assert launcher.surroundings({"LANG": "C.UTF-8", "HOME": "/b"}) == here
    for other in ({"LANG": "C"}, {"LANG": "C.UTF-8", "PYTHONUTF8": "1"}):
        assert launcher.surroundings(other) != here
    monkeypatch.setattr("sys.executable", "/other/python")
    assert launcher.surroundings({"LANG": "C.UTF-8"}) != here


def test_hidden_grpc_lines_do_not_part_a_command_from_its_desk() -> None:
    of_user = {"HOME": "/home/u"}
    of_process = dict(of_user)
    launcher.hide_grpc_lines(of_process)

    assert of_process["GRPC_VERBOSITY"] == "NONE"
    assert launcher.surroundings(of_process) != launcher.surroundings(of_user)

    chosen = {"GRPC_VERBOSITY": "DEBUG"}
    launcher.hide_grpc_lines(chosen)
    assert chosen == {"GRPC_VERBOSITY": "DEBUG"}
