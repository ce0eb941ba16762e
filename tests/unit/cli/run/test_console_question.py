"""The question at a terminal (a pty) that is the run's, also of a program that fills its screen."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
QUESTION = "lns: scout asks for api.test:443"

# The client's side of `lns run -it`, without services: it shows what a program writes before, while
# and after a question stands, and says at the end what the program was sent.
CLIENT = """
import asyncio, json, sys
from cli.run import console as module
from cli.run.console import ProcessConsole

async def main():
    before, meanwhile, question = json.loads(sys.argv[1])
    module._SETTLE_SECONDS = module._REDRAW_SECONDS = 0
    console = ProcessConsole()
    await console.show(before.encode(), is_error=False)
    async with console.asking([question]) as answers:
        await console.show(meanwhile.encode(), is_error=False)
        await console.typed(b"for nobodx\\x7fy\\r")
        answer = await answers.line()
    await console.typed(b"for the program")
    await asyncio.sleep(0.01)
    sent = []
    while not console._control.empty():
        size = (await console.next_control()).resize
        sent.append([size.rows, size.columns])
    print("\\r\\n" + json.dumps([answer, (await console.next_input()).decode(), sent]))

asyncio.run(main())
"""


def at_a_terminal(before: str, meanwhile: str) -> tuple[str, list[object]]:
    """Returns what a terminal of 24 by 80 gets, and what was typed and sent."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, True)
    subprocess.run(["stty", "raw", "-echo", "rows", "24", "cols", "80"], stdin=theirs, check=True)
    with subprocess.Popen(
        [sys.executable, "-c", CLIENT, json.dumps([before, meanwhile, QUESTION])],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/protos/gen"},
    ) as client:  # fmt: skip
        os.close(theirs)
        output = b""
        while data := _read(ours):
            output += data
    os.close(ours)
    assert client.returncode == 0, output.decode()
    screen, _, said = output.decode().strip().rpartition("\r\n")
    return screen, json.loads(said)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # its last user is gone
        return b""


ALTERNATE, ORDINARY = "\x1b[?1049h", "\x1b[?1049l"


def test_lines_of_a_program_stand_as_if_nobody_had_asked() -> None:
    screen, (answer, typed, sent) = at_a_terminal("one\r\ntw", "o\r\nthree")

    before, _, rest = screen.partition("\a" + ALTERNATE)
    question, _, after = rest.partition(ORDINARY)
    assert (before, after) == ("one\r\ntw", "o\r\nthree")  # what the program wrote, whole
    assert QUESTION in question
    assert "three" not in question
    assert (answer, typed) == ("for nobody", "for the program")
    assert sent == []


def test_a_program_that_fills_the_screen_has_it_back_empty_and_draws_again() -> None:
    """Its screen is never left, so it stands where it was: the size changes, and changes back."""
    screen, (answer, typed, sent) = at_a_terminal(
        f"$ top\r\n{ALTERNATE}\x1b[31;7mdrawn", "\x1b[5;5Hdrawn more"
    )

    before, _, rest = screen.partition("\a")
    assert before == f"$ top\r\n{ALTERNATE}\x1b[31;7mdrawn"
    assert ALTERNATE not in rest
    assert ORDINARY not in rest
    question, _, after = rest.rpartition("\x1b[2J\x1b[H")
    assert after == "\x1b[5;5Hdrawn more"
    assert question.startswith("\x1b[0m\x1b[2J\x1b[H")  # readable whatever colours were on
    assert QUESTION in question
    assert (answer, typed) == ("for nobody", "for the program")
    assert sent == [[23, 80], [24, 80]]


@pytest.mark.parametrize("left", [ORDINARY, "\x1b[?1047l", "\x1b[?47l"])
def test_a_program_that_left_the_alternate_screen_is_one_of_lines_again(left: str) -> None:
    screen, (_, _, sent) = at_a_terminal(f"{ALTERNATE}x{left}$ ", "ls")

    assert screen.endswith(f"{ORDINARY}ls")
    assert sent == []
