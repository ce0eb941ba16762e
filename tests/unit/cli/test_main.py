"""How the process of `lns` ends."""

import os
import subprocess
import sys

import pytest

_COMMAND = [sys.executable, "-c", "from cli.main import main; main()", "--version"]


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_nobody_takes_any_more_ends_it_like_sigpipe(unbuffered: str) -> None:
    readable, writable = os.pipe()
    os.close(readable)
    try:
        ended = subprocess.run(
            _COMMAND,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=writable,
            stderr=subprocess.PIPE,
            timeout=30,
            check=False,
        )
    finally:
        os.close(writable)

    assert (ended.returncode, ended.stderr) == (141, b"")


def test_output_that_is_taken_ends_it_with_success() -> None:
    ended = subprocess.run(_COMMAND, capture_output=True, text=True, timeout=30, check=True)

    assert ended.stdout.startswith("lns ")
