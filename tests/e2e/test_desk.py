"""Commands that the front desk runs are as if they ran in place; one suite and desk serve all."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.lns_command import Lns, lns_user


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def state_of(pid: int) -> str:
    """The letter of proc(5): R, S, T, Z; empty for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def desks(lns: Lns) -> list[int]:
    """The process ids of a state directory's desk and of its forks."""
    wanted = [b"-m", b"cli.desk", os.fsencode(lns.home)]
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if all(word in words for word in wanted):
            found.append(int(path.parent.name))
    return sorted(found)


@pytest.fixture(scope="module")
def lns() -> Iterator[Lns]:
    directory = Path(tempfile.mkdtemp(prefix="lns", dir="/tmp"))
    with lns_user(directory, {"LNS_DESK": ""}) as lns:
        lns.ok("create", "--name", "waited-for", "--", "true")
        until((lns.home / "run" / "desk.sock").exists, "a desk is started behind a command")
        yield lns
        for pid in desks(lns):
            os.kill(pid, signal.SIGKILL)
    shutil.rmtree(directory, ignore_errors=True)


def at_desk(lns: Lns, *arguments: str, **options: object) -> "subprocess.Popen[str]":
    """Starts a command, and waits until a fork of the desk runs it."""
    before = len(desks(lns))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = lns.start(*arguments, **{**quiet, **options})
    until(lambda: len(desks(lns)) > before, "the desk runs it")
    return process


@pytest.mark.parametrize(
    "arguments",
    [
        ("ps", "--all", "--format", "json"),
        ("inspect", "no-such-run"),
        ("run", "--no-such-option"),
        ("no-such-command",),
        ("types",),
        ("validate", "missing.yaml"),
    ],
)
def test_a_command_says_and_ends_as_it_does_in_place(lns: Lns, arguments: tuple[str, ...]) -> None:
    in_place = replace(lns, variables={"LNS_DESK": "off"}).run(*arguments)
    through = lns.run(*arguments)

    assert (through.returncode, through.stdout, through.stderr) == (
        in_place.returncode,
        in_place.stdout,
        in_place.stderr,
    )


def test_a_command_works_where_it_was_called_with_the_umask_and_the_streams_of_there(
    lns: Lns,
) -> None:
    there = lns.user / "there"
    there.mkdir()
    process = lns.start("init", "agent", "-o", "made.yaml", cwd=there, umask=0o077)
    process.communicate()
    assert process.returncode == 0
    assert (there / "made.yaml").stat().st_mode & 0o777 == 0o600

    with (there / "out").open("w") as out:
        assert lns.start("types", stdout=out, stderr=subprocess.DEVNULL).wait() == 0
    assert "agent" in (there / "out").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_command_and_ends_both_as_in_place(
    lns: Lns, number: signal.Signals
) -> None:
    process = at_desk(lns, "wait", "waited-for")
    time.sleep(0.5)  # it waits
    process.send_signal(number)

    assert process.wait(timeout=60) in ({130, -number} if number == signal.SIGINT else {-number})
    until(lambda: len(desks(lns)) == 1, "nothing of it is left")


def test_nohup_holds(lns: Lns) -> None:
    process = at_desk(
        lns,
        *("wait", "waited-for"),
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.terminate()
    process.wait(timeout=60)


def test_a_launcher_that_is_killed_takes_its_command_with_it(lns: Lns) -> None:
    process = at_desk(lns, "wait", "waited-for")
    process.kill()
    process.wait(timeout=60)
    until(lambda: len(desks(lns)) == 1, "nothing of it is left")


def test_ctrl_z_stops_both_and_they_go_on_together(lns: Lns) -> None:
    process = at_desk(lns, "wait", "waited-for")
    [worker] = desks(lns)[1:]
    time.sleep(0.5)
    process.send_signal(signal.SIGTSTP)
    until(lambda: state_of(process.pid) == "T" and state_of(worker) == "T", "both stand")
    process.send_signal(signal.SIGCONT)
    until(lambda: "T" not in (state_of(process.pid), state_of(worker)), "both go on")
    process.terminate()
    process.wait(timeout=60)


def test_what_is_set_for_another_interpreter_runs_in_place(lns: Lns) -> None:
    other = replace(lns, variables={"LNS_DESK": "", "PYTHONUNBUFFERED": "1"})
    process = other.start(
        *("wait", "waited-for"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(1.0)
    assert len(desks(lns)) == 1
    process.terminate()
    process.wait(timeout=60)


def test_a_desk_that_was_killed_or_hangs_is_done_without(lns: Lns) -> None:
    [desk] = desks(lns)
    os.kill(desk, signal.SIGKILL)
    until(lambda: desk not in desks(lns), "it is gone")
    assert lns.run("ps").returncode == 0
    until(lambda: len(desks(lns)) == 1, "the next one was started behind that")


def test_the_desk_ends_with_its_suite(lns: Lns) -> None:
    until(lambda: len(desks(lns)) == 1, "there is one")
    assert lns.run("service", "stop").returncode == 0
    until(lambda: not desks(lns), "it has ended")
