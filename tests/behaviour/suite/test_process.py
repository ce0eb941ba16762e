"""The suite as clients meet it: started, found, ended, crashed."""

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from lns.client.connection.suite_process import Suite, find_suite
from services.chassis.channel import open_channel
from services.chassis.locks import owner_lock
from services.chassis.settings import PeerSettings
from services.chassis.sockets import suite_socket
from services.core.version import VERSION
from services.suite.content_process import OTHER_VERSION
from tests.support.eventually import eventually
from tests.support.lns_command import Lns, lns_user


@pytest.fixture
def lns(short_directory: Path) -> Iterator[Lns]:
    with lns_user(short_directory) as user:
        yield user


@pytest.fixture(scope="module")
def started() -> Iterator[Lns]:
    """A user whose suite runs, for tests that only look at it: a start takes seconds."""
    with (
        tempfile.TemporaryDirectory(prefix="lns", dir="/tmp") as directory,
        lns_user(Path(directory)) as user,
    ):
        user.ok("service", "start")
        yield user


def pid_of(lns: Lns) -> int:
    suite = find_suite(lns.files)
    assert suite is not None
    return suite.pid


def test_the_first_command_starts_the_suite_and_the_next_finds_it(lns: Lns) -> None:
    first = lns.run("ps")
    pid = pid_of(lns)
    second = lns.run("ps")

    assert (first.returncode, second.returncode) == (0, 0)
    assert "starting the services" in first.stderr
    assert second.stderr == ""
    assert pid_of(lns) == pid


def test_two_commands_at_once_start_one_suite(lns: Lns) -> None:
    commands = [lns.start("ps", "-q") for _ in range(4)]
    results = [command.communicate(timeout=60) for command in commands]

    assert [command.returncode for command in commands] == [0, 0, 0, 0], results
    served = [line for line in lns.files.log.read_text().splitlines() if '"serving"' in line]
    assert len(served) == 2, "one line for each of its processes"


def test_a_second_suite_gives_up_at_once(started: Lns) -> None:
    pid = pid_of(started)

    async def second() -> tuple[int | None, bytes]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.suite"),
            env=started.environment,
            stderr=asyncio.subprocess.PIPE,
        )
        _, said = await process.communicate()
        return process.returncode, said

    code, said = asyncio.run(second())

    assert code == 1
    assert b"IN_USE" in said
    assert pid_of(started) == pid
    assert started.run("service", "status").returncode == 0


def test_nobody_else_can_reach_the_suite_or_read_what_it_keeps(started: Lns) -> None:
    modes = {
        path: stat.S_IMODE(path.stat().st_mode)
        for path in (
            started.home,
            started.home / "run",
            started.home / "logs",
            started.files.socket,
            started.files.content_socket,
            started.files.log,
            started.home / "run" / "suite.version",
            started.home / "run" / "suite.lock",
            started.home / "run" / "start.lock",
        )
    }

    assert {path: mode for path, mode in modes.items() if mode & 0o077} == {}
    assert modes[started.files.socket] == modes[started.files.content_socket] == 0o600


def test_a_killed_suite_is_replaced_by_the_next_command(lns: Lns) -> None:
    lns.ok("service", "start")
    killed = pid_of(lns)
    lns.kill_suite()

    assert lns.files.socket.exists()
    assert lns.run("service", "status").returncode == 1
    lns.ok("ps")
    assert pid_of(lns) != killed


def suite_of(lns: Lns) -> Suite:
    suite = find_suite(lns.files)
    assert suite is not None
    return suite


def loaded_by(pid: int) -> str:
    """Returns the files that a process has mapped: libraries of what it does."""
    return Path(f"/proc/{pid}/maps").read_text()


def test_foreign_bytes_are_read_in_another_process_than_the_one_that_owns_vms(started: Lns) -> None:
    suite = suite_of(started)

    assert suite.content_pid is not None
    assert suite.content_pid != suite.pid
    assert "isal" in loaded_by(suite.content_pid)
    # Policy files of its users are checked by schemas in both.
    assert not [name for name in ("isal", "oras") if name in loaded_by(suite.pid)]


def test_a_crash_of_the_process_that_reads_foreign_bytes_is_no_crash_of_the_suite(
    lns: Lns,
) -> None:
    lns.ok("service", "start")
    before = suite_of(lns)
    assert before.content_pid is not None
    os.kill(before.content_pid, signal.SIGKILL)

    assert lns.ok("ps", "-q") == ""
    assert "agent" in lns.ok("types")
    after = suite_of(lns)
    assert after.pid == before.pid
    assert after.content_pid not in (None, before.content_pid)
    assert lns.run("service", "status").returncode == 0
    assert "content_process_restarted" in lns.ok("service", "logs")


def test_both_processes_end_together(lns: Lns) -> None:
    lns.ok("service", "start")
    crashed = suite_of(lns)
    lns.kill_suite()
    # The other one dies with it, and who starts the next suite waits for its stores.
    lns.ok("types")
    stopped = suite_of(lns)
    lns.ok("service", "stop")

    for suite in (crashed, stopped):
        assert suite.content_pid is not None
        assert not Path(f"/proc/{suite.content_pid}").exists()
    assert not lns.files.content_socket.exists()


def test_the_second_process_serves_no_suite_of_another_version(lns: Lns) -> None:
    reading, writing = os.pipe()
    ended = subprocess.run(
        [sys.executable, "-m", "services.suite.content", str(os.getpid()), str(writing), "0.0.1"],
        env=lns.environment,
        pass_fds=(writing,),
        timeout=60,
        check=False,
    )
    os.close(writing)
    os.close(reading)

    assert ended.returncode == OTHER_VERSION


def test_why_the_second_process_does_not_serve_is_reported_by_the_command(lns: Lns) -> None:
    (lns.home / "materializer").mkdir(parents=True, mode=0o700)
    lns.home.chmod(0o700)
    settings = lns.user / "services.yaml"
    settings.write_text("suite: {patience: 100ms}\n")

    with owner_lock(lns.home / "materializer" / "lock", what="the store"):
        result = lns.run("service", "start", "--config", str(settings))

    assert result.returncode == 1
    assert "the image store below" in result.stderr
    assert str(os.getpid()) in result.stderr
    assert find_suite(lns.files) is None


def test_stale_files_mislead_nobody(lns: Lns) -> None:
    run = lns.home / "run"
    run.mkdir(parents=True, mode=0o700)
    lns.home.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(run / "lns.sock"))
    (run / "suite.lock").write_text(f"{os.getpid()}\n")
    (run / "suite.version").write_text(f"{os.getpid()} 9.9.9\n")

    result = lns.run("ps")

    assert result.returncode == 0, result.stderr
    assert pid_of(lns) != os.getpid()
    assert "9.9.9" not in result.stderr


def test_a_file_in_the_place_of_the_socket_is_replaced(lns: Lns) -> None:
    (lns.home / "run").mkdir(parents=True, mode=0o700)
    lns.files.socket.write_text("no socket")

    assert lns.run("ps").returncode == 0


async def test_a_command_waits_for_a_suite_that_drains_and_starts_the_next(lns: Lns) -> None:
    settings = lns.user / "services.yaml"
    settings.write_text("server: {grace: 1s}\n")
    await asyncio.to_thread(lns.ok, "service", "start", "--config", str(settings))
    first = pid_of(lns)
    async with open_channel(PeerSettings(target=f"unix:{lns.files.socket}")) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await anext(aiter(watch))  # a call in flight, that only the end of the grace ends
        os.kill(first, signal.SIGTERM)
        await eventually(lambda: find_suite(lns.files) is None)

        await asyncio.to_thread(lns.ok, "ps")
        watch.cancel()

    assert pid_of(lns) != first
    assert lns.files.log.read_text().count('"drained"') == 2


def test_the_services_are_stopped_restarted_and_looked_at(lns: Lns) -> None:
    assert lns.run("service", "status").returncode == 1
    assert "do not run" in lns.run("service", "stop").stderr
    lns.ok("service", "start")
    first = pid_of(lns)
    assert lns.ok("service", "status", "--format", "{{.Pid}} {{.Serving}} {{.Version}}") == (
        f"{first} true {VERSION}"
    )
    lns.ok("service", "restart")
    assert pid_of(lns) != first
    lns.ok("service", "stop")
    assert find_suite(lns.files) is None
    assert not lns.files.socket.exists()
    assert '"serving"' in lns.ok("service", "logs")


def test_a_suite_of_another_version_is_reported(lns: Lns) -> None:
    lns.ok("service", "start")
    (lns.home / "run" / "suite.version").write_text(f"{pid_of(lns)} 0.0.1\n")

    result = lns.run("ps")

    assert result.returncode == 0
    assert "0.0.1" in result.stderr
    assert "lns service restart" in result.stderr


def test_settings_that_cannot_be_used_are_reported_by_the_command(lns: Lns) -> None:
    settings = lns.user / "services.yaml"
    settings.write_text("server: {grace: soon}\nnonsense: 1\n")

    result = lns.run("service", "start", "--config", str(settings))

    assert result.returncode == 1
    assert "server.grace" in result.stderr
    assert "nonsense" in result.stderr


def test_settings_beside_the_configuration_are_used(lns: Lns) -> None:
    directory = lns.user / ".config" / "lns"
    directory.mkdir(parents=True)
    (directory / "services.yaml").write_text("log: {level: debug}\nnonsense: 1\n")

    assert "nonsense" in lns.run("ps").stderr


def test_a_state_directory_with_a_long_path_is_served_from_a_short_one(
    short_directory: Path,
) -> None:
    deep = short_directory / ("d" * 120)
    deep.mkdir()
    with lns_user(deep) as lns:
        lns.ok("ps")
        path = suite_socket(lns.home)

        assert not path.is_relative_to(lns.home)
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        lns.ok("service", "stop")
        path.with_name(f"{path.name}.lock").unlink()


def test_the_log_is_rotated_when_a_suite_starts(lns: Lns) -> None:
    settings = lns.user / "services.yaml"
    settings.write_text("suite: {log_size: 1KiB}\n")
    lns.files.log.parent.mkdir(parents=True, mode=0o700)
    lns.files.log.write_text("x" * 2000 + "\n")

    lns.ok("service", "start", "--config", str(settings))

    assert lns.files.log.with_name("suite.log.1").read_text() == "x" * 2000 + "\n"
    assert '"serving"' in lns.files.log.read_text()
