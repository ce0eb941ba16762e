"""The launcher of VMMs, with a shell in the VMM's place that tries what an escaped guest would."""

import contextlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.vm_runner.adapters.confinement.confinement import default_launcher
from services.vm_runner.adapters.confinement.switches import (
    Code,
    Data,
    Device,
    Group,
    Isolate,
    Limit,
    Listen,
    OomScore,
    PidFile,
    Ram,
    Read,
    Switch,
    User,
    Wait,
    Write,
    launch_line,
)
from tests.support.prerequisites import Prerequisite, missing

ROOT = Path(__file__).parents[3]
SHELL = Path("/bin/busybox")
NULL = Device(Path("/dev/null"))
FIRST_USER = 1_900_000_000
USER = User(FIRST_USER, 1 << 22)
SOMEBODY = 54321

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only root can be confined from both ways"
)


class Launcher:
    """Starts a shell confined, as root or as a user without any privilege."""

    def __init__(self, directory: Path, launcher: Path, shell: Path) -> None:
        self.directory = directory
        self.program = launcher
        self.shell = Code(shell, SHELL)

    def line(self, script: str, *switches: Switch, isolated: bool = True) -> tuple[str, ...]:
        program = str(SHELL if isolated else self.shell.source)
        return launch_line(self.program, switches, (program, "sh", "-c", script))

    def run(
        self, script: str, *switches: Switch, as_root: bool = True, isolated: bool = True
    ) -> "subprocess.CompletedProcess[str]":
        """Runs a script in a view of its own with nothing in it but the shell and /dev/null."""
        way: tuple[Switch, ...] = (User(FIRST_USER, 1 << 22),) if as_root else ()
        if isolated:
            way = (*way, Isolate(with_users=True), self.shell, NULL)
        return subprocess.run(
            self.line(script, Wait(), *way, *switches, isolated=isolated),
            cwd=self.directory,
            env={"PATH": "/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
            **({} if as_root else {"user": SOMEBODY, "group": SOMEBODY, "extra_groups": []}),
        )


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    """A launcher in a folder that every user may read."""
    program = default_launcher(ROOT / "services" / "vm_runner")
    busybox = shutil.which("busybox")
    if not program.exists() or busybox is None:
        missing(Prerequisite.QEMU, "`make guest-agent`, apt-get install busybox-static")
    directory = Path(tempfile.mkdtemp(prefix="lns", dir="/tmp"))
    directory.chmod(0o755)
    copies = [Path(shutil.copy(path, directory)) for path in (program, busybox)]
    for copy in copies:
        copy.chmod(0o755)
    yield Launcher(directory, *copies)
    shutil.rmtree(directory)


TRIES = {
    "write to its root": ("echo x >/x", "Read-only file system"),
    "write to its program": ("echo x >>/bin/busybox", "Permission denied"),
    "change its program": ("exec busybox chmod 777 /bin/busybox", "not permitted"),
    "make a device": ("exec busybox mknod /dev/sda b 8 0", "Operation not permitted|Read-only"),
    "mount": ("exec busybox mount -t tmpfs none /dev", "denied"),
    "remount its root": ("exec busybox mount -o remount,rw none /", "denied"),
    "leave its root": ("exec busybox chroot / true", "Operation not permitted"),
    "make a namespace": ("exec busybox unshare -U true", "Operation not permitted"),
    "make a network": ("exec busybox unshare -n true", "Operation not permitted"),
    "connect": ("exec busybox nc 127.0.0.1 1", "Operation not permitted"),
    "send packets": ("exec busybox ping -c1 127.0.0.1", "not permitted|denied"),
    "configure a network": ("exec busybox ifconfig lo up", "Operation not permitted"),
    "see processes": ("exec busybox ls /proc", "No such file"),
    "see the host's users": ("exec busybox cat /etc/passwd", "No such file"),
    "see the host's root": ("exec busybox ls /.host", "No such file"),
    "end a process of the host": (f"exec busybox kill -9 {os.getpid()}", "not permitted"),
    "name the host": ("exec busybox hostname other", "not permitted|must be root"),
    "set the clock": ("exec busybox date -s 2001-01-01", "not permitted"),
    "restart the host": ("exec busybox reboot -f", "not permitted"),
    "raise a limit": ("ulimit -c unlimited", "Operation not permitted|error setting limit"),
    "start a process": ("busybox true &", "can't fork: Operation not permitted"),
}


@pytest.mark.parametrize("as_root", [True, False], ids=["from root", "from a user"])
@pytest.mark.parametrize(("script", "said"), TRIES.values(), ids=TRIES.keys())
def test_what_an_escaped_guest_tries_fails(
    launcher: Launcher, script: str, said: str, as_root: bool
) -> None:
    result = launcher.run(script, Limit("core", 0), as_root=as_root)

    assert result.returncode != 125, result
    assert re.search(said, result.stderr), result


@pytest.mark.parametrize("as_root", [True, False], ids=["from root", "from a user"])
def test_the_view_has_what_was_asked_for_and_nothing_else(
    launcher: Launcher, as_root: bool
) -> None:
    (launcher.directory / "firmware").mkdir()
    (launcher.directory / "firmware" / "bios").write_text("bios\n")
    data = Data(launcher.directory / "firmware", Path("/usr/share/firmware"))

    result = launcher.run(
        "read line </usr/share/firmware/bios; echo $line; exec busybox find / -xdev",
        data,
        as_root=as_root,
    )

    assert sorted(result.stdout.split()) == sorted(
        [
            *("/", "/bin", "/bin/busybox", "/dev", "/dev/null"),
            *("/usr", "/usr/share", "/usr/share/firmware", "bios"),
        ]
    ), result.stderr


def test_data_cannot_be_executed(launcher: Launcher) -> None:
    copy = Data(launcher.shell.source, Path("/opt/busybox"))

    result = launcher.run("exec /opt/busybox true", copy)

    assert "Permission denied" in result.stderr


def test_a_program_of_root_is_a_user_of_its_own(launcher: Launcher) -> None:
    uid, gid, *groups = re.findall(r"\d+", launcher.run("exec busybox id").stdout)

    assert FIRST_USER <= int(uid) < FIRST_USER + (1 << 22)
    assert {uid, gid, *groups} == {uid}


def test_two_programs_are_two_users(launcher: Launcher) -> None:
    users = {launcher.run("exec busybox id -u").stdout for _ in range(3)}

    assert len(users) == 3


def test_one_group_is_kept_where_it_is_asked_for(launcher: Launcher) -> None:
    result = launcher.run("exec busybox id -G", Group(105), isolated=False)

    assert result.stdout.split()[1:] == ["105"]


def test_a_program_of_a_user_stays_that_user(launcher: Launcher) -> None:
    assert launcher.run("exec busybox id -u", as_root=False).stdout.split() == [str(SOMEBODY)]


def test_without_a_view_privileges_are_gone_all_the_same(launcher: Launcher) -> None:
    script = (
        f"while read line; do echo $line; done </proc/self/status; echo x >{launcher.directory}/x"
    )
    (launcher.directory / "x").touch(0o600)

    result = launcher.run(script, isolated=False)

    status = dict(line.split(": ", 1) for line in result.stdout.splitlines() if ": " in line)
    assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == "0000000000000000"
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert "Permission denied" in result.stderr


def test_descriptors_are_numbered_in_order_and_others_are_closed(launcher: Launcher) -> None:
    """What is given can be used although the program's user could not open it."""
    read, write = launcher.directory / "read", launcher.directory / "write"
    read.write_text("given\n")
    write.touch()
    for path in (read, write):
        path.chmod(0o600)
    secret = os.open("/etc/passwd", os.O_RDONLY)
    script = (
        "read line <&4; echo $line >&5; echo x >&4;"
        f'for i in 6 7 8 9 {secret}; do read line <&$i && echo "$line"; done'
    )
    with contextlib.closing(os.fdopen(secret)):
        os.set_inheritable(secret, True)
        result = subprocess.run(
            launcher.line(
                script,
                *(Wait(), USER, Isolate(with_users=True), launcher.shell),
                *(Listen(Path("a.sock")), Read(read), Write(write)),
            ),
            cwd=launcher.directory,
            env={"PATH": "/bin"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            close_fds=False,
            text=True,
            timeout=20,
            check=False,
        )

    assert write.read_text() == "given\n"
    assert read.read_text() == "given\n"
    assert result.stdout == ""
    assert "root:" not in result.stderr


def test_a_socket_listens_before_the_program_runs_and_for_the_caller_alone(
    launcher: Launcher,
) -> None:
    switches = (USER, Isolate(with_users=True), launcher.shell, Listen(Path("a.sock")))
    line = launcher.line("exec busybox sleep 60", *switches, PidFile(Path("pid")))
    subprocess.run(line, cwd=launcher.directory, check=True, timeout=20)
    path = launcher.directory / "a.sock"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))

        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
        assert path.stat().st_uid == 0
    end(launcher)


def end(launcher: Launcher) -> int:
    """Ends the recorded program, a child of this process; returns its pid."""
    pid = int((launcher.directory / "pid").read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return pid


def wait_until_executed(pid: int) -> None:
    """Wait until the process has become its program: the launcher ends a little earlier."""
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/comm").read_text() != "busybox\n":
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_program_is_the_caller_s_child_under_the_recorded_pid(launcher: Launcher) -> None:
    switches = (USER, Isolate(with_users=True), launcher.shell, NULL, OomScore(500))
    line = launcher.line("exec busybox sleep 60", *switches, PidFile(Path("pid")))
    done = subprocess.run(line, cwd=launcher.directory, check=True, timeout=20)
    pid = int((launcher.directory / "pid").read_text())
    wait_until_executed(pid)

    try:
        status = dict(
            text.split(":\t", 1)
            for text in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in text
        )
        assert status["PPid"] == str(os.getpid())
        assert status["NSpid"].split() == [str(pid), "1"]
        assert status["Uid"].split() == [str(FIRST_USER + pid)] * 4
        assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "500\n"
        assert done.returncode == 0
    finally:
        end(launcher)


def test_limits_hold(launcher: Launcher) -> None:
    written = launcher.directory / "written"
    written.touch()
    script = "while echo 0123456789; do :; done >&3"

    launcher.run(script, Write(written), Limit("fsize", 5000))
    result = launcher.run("ulimit -u", Limit("nproc", 4))

    assert written.stat().st_size <= 5000
    assert result.stdout == "4\n"


def test_a_limit_is_never_raised(launcher: Launcher) -> None:
    result = launcher.run("ulimit -n", Limit("nofile", 1 << 40))

    assert int(result.stdout) < 1 << 40


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "a switch that is not known": (("--none", "--", "/x"), "unknown switch --none"),
    "no program": (("--isolate", "--"), "no program"),
    "nothing": ((), "no program"),
    "a value that is missing": (("--user", "1"), "no value for --user"),
    "a number with a letter": (("--group", "12x", "--", "/x"), "number 12x"),
    "a negative number": (("--limit", "core", "-1", "--", "/x"), "number -1"),
    "a limit that is not known": (("--limit", "x", "1", "--", "/x"), "unknown limit x"),
    "a relative path": (("--data", "a", "/b", "--", "/x"), "not an absolute path: a"),
    "a file that is not there": (("--read", "/none", "--", "/x"), "open /none"),
    "a group that is not there": (("--cgroup", "/none", "--", "/x"), "/none/cgroup.procs"),
    "a program that is not there": (("--wait", "--", "/none"), "/none: No such file"),
    "a source that is not there": (
        ("--wait", "--isolate", "--data", "/none", "/b", "--", "/x"),
        "/none: No such file",
    ),
    "a socket that exists": (("--listen", "/bin/sh", "--", "/x"), "Address in use"),
    "a path too long for a socket": (("--listen", "a" * 108, "--", "/x"), "Filename too long"),
}


@pytest.mark.parametrize(("arguments", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_and_starts_nothing(
    launcher: Launcher, arguments: tuple[str, ...], said: str
) -> None:
    result = subprocess.run(
        [launcher.program, *arguments],
        cwd=launcher.directory,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert result.returncode == 125
    assert said in result.stderr
    assert result.stderr.startswith("lns-confine: ")


_MAKE_A_FILE = """
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
make = lambda: libc.open(b"/no/such/file", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
fd = make()
print(os.read(fd, 100).decode())
private = mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
private[:4] = b"mine"
try:
    os.pwrite(fd, b"ours", 0)
except OSError as error:
    print(error.strerror)
print(make(), os.strerror(ctypes.get_errno()))
"""


@pytest.mark.parametrize(
    ("is_shared", "said", "left"),
    [(False, ["Bad file descriptor"], "the memory"), (True, [], "oursmemory")],
    ids=["a private copy", "shared"],
)
def test_a_vmm_that_makes_a_file_gets_that_of_the_memory_and_no_second_one(
    launcher: Launcher, is_shared: bool, said: list[str], left: str
) -> None:
    memory = launcher.directory / "memory"
    memory.write_text("the memory")
    switches = (Wait(), Ram(memory, is_shared=is_shared))
    result = subprocess.run(
        launch_line(launcher.program, switches, (sys.executable, "-c", _MAKE_A_FILE)),
        cwd=launcher.directory,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )

    assert result.stdout.splitlines() == ["the memory", *said, "-1 Function not implemented"], (
        result
    )
    assert memory.read_text() == left
