"""Commands that print a secret: bounded in time and size, ended with all that they started."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from services.core.errors import CredentialUnusable
from services.vm_runner.adapters.credentials.commands import ShellCommands


async def test_the_output_of_a_command_is_returned() -> None:
    assert await ShellCommands().run("printf 'a b\\n'; echo not this >&2") == "a b\n"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("exit 3", "status 3"),
        ("lns-no-such-command", "status 127"),
        ("head -c 100000 /dev/zero", "more than 65536 bytes"),
        ("yes", "more than 65536 bytes"),
        ("printf '\\377'", "not UTF-8"),
        ("kill -9 $$", "status -9"),
    ],
)
async def test_a_command_that_fails_says_how(command: str, why: str) -> None:
    with pytest.raises(CredentialUnusable, match=why):
        await ShellCommands().run(command)


async def test_a_command_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    command = f"(sleep 1; touch {alive}) & sleep 60"

    with pytest.raises(CredentialUnusable, match=r"not ended after 0\.2 seconds"):
        await ShellCommands(seconds=0.2).run(command)

    await asyncio.sleep(1.5)
    assert not alive.exists()


async def test_what_left_the_session_and_holds_the_output_is_not_waited_for(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    command = f"setsid sh -c 'echo $$ >{pid}; exec sleep 60' & exit 0"

    with pytest.raises(CredentialUnusable, match="not ended after 1 seconds"):
        async with asyncio.timeout(10):
            await ShellCommands(seconds=1).run(command)

    os.kill(int(pid.read_text()), signal.SIGKILL)


async def test_a_command_gets_no_terminal_and_no_input() -> None:
    assert await ShellCommands().run("cat; test -t 0 || echo none") == "none\n"
