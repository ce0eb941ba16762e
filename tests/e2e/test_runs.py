"""Runs of an image: exit codes, pipes, signals, a life in the background, a crash of the suite."""

import hashlib
import os
import pty
import secrets
import signal
import subprocess

from tests.support.lns_command import Lns

EXITS = {
    "true": (["true"], 0),
    "a code": (["sh", "-c", "echo out; echo err >&2; exit 3"], 3),
    "not executable": (["/etc/passwd"], 126),
    "not found": (["no-such-program"], 127),
    "a signal": (["sh", "-c", "kill -KILL $$"], 137),
}


def test_the_exit_code_is_the_workloads(lns: Lns, image: str) -> None:
    """All at once: booting one after the other would take longest of all tests."""
    started = {
        name: lns.start("run", "--rm", "-q", "-m", "256", image, "--", *command)
        for name, (command, _) in EXITS.items()
    }
    outputs = {name: process.communicate(timeout=200) for name, process in started.items()}

    assert {name: process.returncode for name, process in started.items()} == {
        name: code for name, (_, code) in EXITS.items()
    }, outputs
    assert outputs["a code"] == ("out\n", "err\n")
    assert lns.ok("ps", "-aq") == ""


def test_binary_data_goes_through_and_ctrl_c_reaches_the_workload(lns: Lns, image: str) -> None:
    script = (
        "import hashlib, signal, sys\n"
        "data = sys.stdin.buffer.read()\n"
        "sys.stdout.buffer.write(data[::-1])\n"
        "sys.stdout.flush()\n"
        "def stop(*_): print('interrupted', file=sys.stderr, flush=True); sys.exit(42)\n"
        "signal.signal(signal.SIGINT, stop)\n"
        "print('ready', file=sys.stderr, flush=True)\n"
        "signal.pause()\n"
    )
    data = secrets.token_bytes(3_000_000)
    process = lns.start(
        *("run", "--rm", "-i", "-q", image, "--", "python3", "-c", script),
        stdin=subprocess.PIPE,
        text=False,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdin.write(data)  # type: ignore[arg-type]  # bytes, without text
    process.stdin.close()
    received = process.stdout.read(len(data))
    assert process.stderr.readline() == b"ready\n"  # type: ignore[comparison-overlap]  # bytes
    process.send_signal(signal.SIGINT)

    assert process.wait(60) == 42
    assert process.stderr.read() == b"interrupted\n"  # type: ignore[comparison-overlap]  # bytes
    expected = hashlib.sha256(data[::-1]).hexdigest()
    assert hashlib.sha256(received).hexdigest() == expected  # type: ignore[arg-type]  # bytes
    process.stdout.close()
    process.stderr.close()


def test_what_cannot_be_executed_is_no_success_in_the_background(lns: Lns, image: str) -> None:
    commands = {
        "no-such-program": (127, "does not exist"),
        "/etc/passwd": (126, "cannot be executed"),
    }
    for command, (code, said) in commands.items():
        result = lns.run("run", "-d", "-q", "--rm", image, "--", command)

        assert result.returncode == code
        assert f"lns: {command} {said}" in result.stderr
        assert len(result.stdout.strip()) == 32
    assert lns.ok("ps", "-aq") == ""


def test_a_run_in_the_background_has_a_life(lns: Lns, image: str) -> None:
    name = f"life-{secrets.token_hex(3)}"
    script = "echo first; touch /kept; while :; do sleep 1; done"
    run_id = lns.ok(
        *("run", "-d", "-q", "--name", name, "-e", "WHO=me", "--label", "kind=test"),
        *(image, "--", "sh", "-c", script),
    )

    listed = lns.ok("ps", "--format", "{{.Name}} {{.State}}", "--filter", "label=kind=test")
    assert listed == f"{name} running"
    assert lns.ok("ps", "-q") == run_id[:12]
    assert lns.ok("logs", run_id[:6]) == "first"
    assert lns.ok("exec", name, "sh", "-c", "echo $WHO; ls /kept") == "me\n/kept"
    assert lns.ok("exec", name, "--", "echo", "--", "it") == "-- it"
    assert lns.ok("exec", "-i", name, "cat", stdin="typed") == "typed"
    assert lns.run("exec", name, "sh", "-c", "exit 9").returncode == 9
    assert lns.run("exec", name, "no-such-program").returncode == 127
    assert lns.run("exec", "no-such-run", "true").returncode == 125
    taken = lns.run("run", "-q", "--name", name, image, "--", "true")
    assert taken.returncode == 125
    assert name in taken.stderr
    assert name in lns.ok("stats", "--no-stream")
    assert lns.ok("inspect", name, "--format", "{{.RunId}}") == run_id

    assert lns.run("rm", name).returncode == 1
    waiting = lns.start("wait", name)
    assert lns.ok("stop", "-t", "1", name) == name
    assert waiting.communicate(timeout=60)[0] == "143\n"
    assert lns.ok("ps", "-a", "--format", "{{.Name}} {{.ExitCode}}") == f"{name} 143"
    lns.ok("rename", name, f"{name}-2")
    lns.ok("rm", f"{name}-2")
    assert lns.ok("ps", "-aq") == ""


def test_a_terminal_is_one_for_the_workload(lns: Lns, image: str) -> None:
    controller, terminal = pty.openpty()
    process = lns.start(
        *("run", "--rm", "-it", "-q", image, "--", "sh", "-c", "tty; read line; echo [$line]"),
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
    )
    os.close(terminal)
    os.write(controller, b"typed\n")
    shown = b""
    while b"[typed]" not in shown:
        shown += os.read(controller, 1024)

    assert b"/dev/pts/" in shown
    assert process.wait(60) == 0
    os.close(controller)
    assert process.stderr is not None
    process.stderr.close()


def test_a_crashed_suite_comes_back_with_every_run_recorded(lns: Lns, image: str) -> None:
    name = f"crash-{secrets.token_hex(3)}"
    lns.ok("run", "-d", "-q", "--name", name, image, "--", "sleep", "1000")

    lns.kill_suite()
    states = lns.ok("ps", "-a", "--format", "{{.Name}} {{.State}}")

    assert states in (f"{name} running", f"{name} lost")
    lns.ok("rm", "-f", name)
    assert lns.ok("ps", "-aq") == ""


def test_a_run_without_an_image_is_the_minimal_guest(lns: Lns) -> None:
    result = lns.run("run", "--rm", "-q", "--", "/no-such-program")

    assert result.returncode == 127
