import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from lns.client.connection.suite_process import SuiteFiles, _last_words, find_suite, tail
from services.core.errors import CallerDenied

DRAINED = json.dumps({"event": "drained", "level": "info"})
FULL = json.dumps({"event": "not_served", "level": "error", "message": "disk full"})
DEFECT = json.dumps(
    {"event": "failed", "level": "error", "exception": [{"exc_type": "KeyError", "frames": [1]}]}
)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        pytest.param(
            [DRAINED, FULL],
            "disk full",
            id="an error of ours says its message",
        ),
        pytest.param(
            [DEFECT],
            "a defect of lns (KeyError)",
            id="a defect says its kind and shows no frames",
        ),
        pytest.param(["Killed"], "Killed", id="what is not ours is shown as it is"),
        pytest.param([DRAINED], "it said nothing of why", id="a silent end"),
        pytest.param([], "it said nothing of why", id="no log"),
    ],
)
def test_the_end_of_the_services_is_reported_in_one_line_without_a_stack_trace(
    lines: list[str], said: str
) -> None:
    assert _last_words(lines) == said


def test_only_what_was_said_since_a_start_is_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    start = log.stat().st_size
    with log.open("a") as file:
        file.write("since\n")

    assert tail(log, 3, start=start) == ["since"]
    assert tail(log, 3) == ["before", "since"]
    assert tail(log, 3, start=1000) == ["before", "since"], "it was rotated"
    assert tail(tmp_path / "none", 3) == []


def test_a_state_directory_that_is_invalid_is_named(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.touch()

    with pytest.raises(NotADirectoryError) as caught:
        find_suite(SuiteFiles(home=home))

    assert str(caught.value.filename).startswith(str(home))


class SocketOfAnotherUser(socket.socket):
    """What the kernel says where another user's process listens."""

    def getsockopt(self, *_: Any) -> Any:
        return struct.pack("3i", os.getpid(), 4242, 4242)


def test_services_of_another_user_are_not_spoken_to(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SuiteFiles(home=short_directory)
    files.run.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(files.socket))
        listener.listen()
        monkeypatch.setattr(socket, "socket", SocketOfAnotherUser)

        with pytest.raises(CallerDenied, match="belong to user 4242"):
            find_suite(files)
