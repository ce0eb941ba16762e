"""The file server as a process: what it may do on the host, and that it ends."""

import asyncio
import contextlib
import ctypes
import errno
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from services.core.errors import RequestInvalid, VmFailed
from services.vm_runner.adapters.confinement.cgroups import Cgroups, find_place
from services.vm_runner.adapters.file_servers import FileServers
from services.vm_runner.file_server import wire
from services.vm_runner.machines import HostPort
from services.vm_runner.storage.bind_host import ServedBind
from tests.support.eventually import eventually
from tests.support.fuse_client import SILENT, FuseClient, FuseError, over

ROOT = Path(__file__).parents[3]
OWNER, SOMEBODY = 54321, 12321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root serves others' files")
RUN = "f" * 32


def a_bind(directory: Path, source: Path, *, rate: int = 0, **more: bool) -> ServedBind:
    return ServedBind(
        run_id=RUN,
        directory=directory,
        port=HostPort(name="lns.bind0", socket="bind0.sock"),
        source=source,
        read_only=more.get("read_only", False),
        keep_secrets=more.get("keep_secrets", False),
        rate=rate,
    )


def a_host(directory: Path, *, view_required: bool = False) -> FileServers:
    cgroups = Cgroups(find_place(is_root=os.geteuid() == 0))
    return FileServers(directory / "home", cgroups=cgroups, view_required=view_required)


@contextmanager
def a_vmm(directory: Path) -> Iterator[socket.socket]:
    """Listens where a VMM would."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "bind0.sock"))
        listening.listen(2)
        listening.settimeout(20)
        yield listening


@asynccontextmanager
async def served(
    directory: Path, source: Path, *, rate: int = 0, **more: bool
) -> AsyncIterator[tuple[FuseClient, int]]:
    """Serves a bind by a process; yields a guest of it, and the process's pid."""
    servers = a_host(directory, view_required=more.pop("view_required", False))
    bind = a_bind(directory, source, rate=rate, **more)
    with a_vmm(directory) as listening:
        await servers.serve(bind)
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(20)
            guest = over(connection)
            guest.init()
            yield guest, int((directory / "bind0.pid").read_text())
        await servers.ended((bind,))
    assert not (directory / "bind0.pid").exists()
    assert (directory / "bind0.log").read_text() == ""


@pytest.fixture
def folder(short_directory: Path) -> Path:
    folder = short_directory / "bound"
    folder.mkdir()
    (folder / "a").write_text("content\n")
    return folder


def fails(number: int, act: Callable[[], object]) -> None:
    with pytest.raises(FuseError) as caught:
        act()
    assert caught.value.number == number, errno.errorcode[caught.value.number]


def process_directory(pid: int) -> Path:
    return Path(f"/proc/{pid}")


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_a_rate_is_kept_inside_the_confinement(short_directory: Path, folder: Path) -> None:
    async with served(short_directory, folder, rate=1 << 20) as (guest, _):
        _, fh = guest.create(b"f")
        began = time.monotonic()
        for at in range(0, 2 << 20, 128 << 10):
            guest.write(fh, b"x" * (128 << 10), at)
        assert time.monotonic() - began >= 0.9  # a second's worth came at once


# ---- whose rights ----


@as_root
async def test_a_bind_is_used_with_its_owners_rights_and_no_others(
    short_directory: Path, folder: Path
) -> None:
    (folder / "roots").write_text("root's\n")
    (folder / "roots").chmod(0o600)
    (folder / "others").write_text("another's\n")
    os.chown(folder / "others", SOMEBODY, SOMEBODY)
    (folder / "readable").write_text("for all\n")
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    for path in (folder, folder / "a"):
        os.chown(path, OWNER, OWNER)

    async with served(short_directory, folder) as (guest, pid):
        assert guest.content(guest.walk("a").node) == b"content\n"
        assert guest.content(guest.walk("readable").node) == b"for all\n"
        owners = {name: guest.walk(name).attr.uid for name in ("a", "roots", "others")}
        fails(errno.EACCES, lambda: guest.open(guest.walk("roots").node))
        fails(errno.EACCES, lambda: guest.open(guest.walk("others").node, os.O_WRONLY))
        fails(errno.EACCES, lambda: guest.walk("closed/x"))
        guest.create(b"made")
        guest.mkdir(b"folder")
        guest.symlink(b"link", b"/")
        guest.mknod(b"pipe", stat.S_IFIFO | 0o644)
        fields = status(pid)

    assert owners == {"a": 0, "roots": wire.NOBODY, "others": wire.NOBODY}
    for name in ("made", "folder", "link", "pipe"):
        found = (folder / name).lstat()
        assert (found.st_uid, found.st_gid) == (OWNER, OWNER)
    assert fields["Uid"].split() == [str(OWNER)] * 4
    assert fields["Gid"].split() == [str(OWNER)] * 4
    assert fields["Groups"].split() == [str(OWNER)]


@as_root
async def test_roots_own_bind_is_used_without_roots_privileges(
    short_directory: Path, folder: Path
) -> None:
    (folder / "others").write_text("x")
    (folder / "others").chmod(0o600)
    os.chown(folder / "others", SOMEBODY, SOMEBODY)
    async with served(short_directory, folder) as (guest, pid):
        fails(errno.EACCES, lambda: guest.open(guest.walk("others").node))
        guest.create(b"made")
        fields = status(pid)
    assert (folder / "made").stat().st_uid == 0
    assert {fields[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {
        "0" * 16
    }


# ---- what it has of the host ----


@as_root
async def test_the_server_has_nothing_but_its_bind(short_directory: Path, folder: Path) -> None:
    async with served(short_directory, folder, view_required=True) as (guest, pid):
        guest.walk("a")
        process = process_directory(pid)
        assert [path.name for path in (process / "root").iterdir()] == ["a"]
        mounts = (process / "mountinfo").read_text().splitlines()
        assert len(mounts) == 1
        options = mounts[0].split()[5].split(",")
        assert {"rw", "nosuid", "nodev", "noexec"} <= set(options)
        devices = (process / "net" / "dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in devices] == ["lo"]
        own, ours = (Path(f"/proc/{who}/ns") for who in (pid, "self"))
        for name in ("mnt", "net", "ipc", "uts", "pid", "user"):
            assert (own / name).readlink() != (ours / name).readlink()
        fields = status(pid)
        assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
        environment = (process / "environ").read_bytes()
        assert environment.count(b"=") == 1
        assert environment.startswith(b"PYTHONPATH=")
        limits = (process / "limits").read_text()
        assert "Max core file size        0 " in limits


ATTACK = """
import os, pathlib, sys
from services.vm_runner.file_server import ground
from tests.support.escape_attempts import attempts
ground.confine(pathlib.Path(sys.argv[1]), read_only=False, view_required=True)
print(os.getpid(), attempts(int(sys.argv[2])), flush=True)
"""


@as_root
def test_code_that_runs_in_a_server_reaches_no_file_process_user_or_network(
    folder: Path,
) -> None:
    """Everything that it holds is tried, upwards and downwards."""
    os.chown(folder, OWNER, OWNER)
    victim = subprocess.Popen(["sleep", "60"], user=OWNER, group=OWNER)
    try:
        tried = subprocess.run(
            [sys.executable, "-c", ATTACK, str(folder), str(victim.pid)],
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT}:{ROOT}/protos/gen"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        victim.kill()
        victim.wait()

    assert tried.stderr == ""
    assert tried.stdout == "1 []\n"


@as_root
async def test_the_servers_of_a_run_have_a_cgroup_of_their_own(
    short_directory: Path, folder: Path
) -> None:
    place = find_place(is_root=True)
    groups = {folder / f"lns-{RUN}-binds" for folder in place.folders.values()} if place else set()
    async with served(short_directory, folder) as (_, pid):
        for group in groups:
            assert str(pid) in (group / "cgroup.procs").read_text().split()
        assert (process_directory(pid) / "oom_score_adj").read_text() == "500\n"
    assert not any(group.exists() for group in groups)


@as_root
async def test_a_read_only_bind_is_mounted_so(short_directory: Path, folder: Path) -> None:
    async with served(short_directory, folder, read_only=True) as (guest, pid):
        options = (process_directory(pid) / "mountinfo").read_text().split()[5]
        assert options.startswith("ro,")
        fails(errno.EROFS, lambda: guest.create(b"x"))
        assert guest.content(guest.walk("a").node) == b"content\n"


async def test_a_file_is_served_alone(short_directory: Path, folder: Path) -> None:
    (folder / "beside").write_text("not bound")
    async with served(short_directory, folder / "a") as (guest, pid):
        assert stat.S_ISREG(guest.getattr(1).mode)
        fh = guest.open(1, os.O_RDWR)
        assert guest.read(fh) == b"content\n"
        guest.write(fh, b"C")
        fails(errno.ENOTDIR, lambda: guest.lookup(b"beside"))
        if os.geteuid() == 0:
            assert [path.name for path in (process_directory(pid) / "root").iterdir()] == ["file"]
    assert (folder / "a").read_text() == "Content\n"


async def test_a_file_that_is_replaced_on_the_host_stays_the_old_one(
    short_directory: Path, folder: Path
) -> None:
    async with served(short_directory, folder / "a") as (guest, _):
        with (folder / "a").open("a") as file:
            file.write("more\n")
        assert guest.content(1) == b"content\nmore\n"  # in its place it changes for both

        (folder / "new").write_text("another file\n")
        (folder / "new").rename(folder / "a")
        assert guest.content(1) == b"content\nmore\n"
        assert guest.getattr(1).size == 13
        guest.write(guest.open(1, os.O_RDWR), b"lost")
        assert guest.content(1) == b"lostent\nmore\n"
    assert (folder / "a").read_text() == "another file\n"


# ---- its life ----


async def test_servers_that_came_and_went_leave_nothing(
    short_directory: Path, folder: Path
) -> None:
    pids = []
    for number in range(12):
        async with served(short_directory, folder) as (_, pid):
            pids.append(pid)
        (short_directory / "bind0.sock").unlink()
        if number == 1:  # what Python opens once is open
            before = descriptors()
    assert descriptors() == before
    assert not [pid for pid in pids if process_directory(pid).exists()]
    assert names(short_directory) == {"bind0.log", "bound"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_there_is_one_server_of_a_port_however_often_it_is_asked_for(
    short_directory: Path, folder: Path
) -> None:
    bind = a_bind(short_directory, folder)
    async with served(short_directory, folder) as (_, pid):
        later = a_host(short_directory)  # the next service
        await later.serve(bind)
        assert int((short_directory / "bind0.pid").read_text()) == pid


async def test_a_server_that_is_not_found_is_in_nobodys_way(
    short_directory: Path, folder: Path
) -> None:
    """Its pid was not recorded yet when the service looked: the second one sees the lock."""
    async with served(short_directory, folder) as (guest, pid):
        pid_file = short_directory / "bind0.pid"
        pid_file.write_text("")
        command = a_host(short_directory).command(a_bind(short_directory, folder))
        second = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, timeout=20, check=True
        )
        assert second.stdout == b"ready"
        assert guest.walk("a").attr.size == 8
        pid_file.write_text(f"{pid}\n")


@pytest.mark.parametrize("offence", [struct.pack("<I", 3) + bytes(60), b"\xff" * 60])
async def test_a_guest_that_offends_loses_its_server_and_nothing_else(
    short_directory: Path, folder: Path, offence: bytes
) -> None:
    servers = a_host(short_directory)
    bind = a_bind(short_directory, folder)
    with a_vmm(short_directory) as listening:
        await servers.serve(bind)
        connection, _ = listening.accept()
        with connection:
            connection.settimeout(20)
            connection.sendall(offence)
            assert connection.recv(1) == b""
        await servers.ended((bind,))
    assert "ended: a request of" in (short_directory / "bind0.log").read_text()


async def test_what_cannot_be_served_is_reported_and_leaves_nothing(
    short_directory: Path, folder: Path
) -> None:
    servers = a_host(short_directory)
    with pytest.raises(VmFailed, match="cannot be served: No such file"):
        await servers.serve(a_bind(short_directory, folder))  # nobody listens
    with a_vmm(short_directory), pytest.raises(VmFailed, match="missing"):
        await servers.serve(a_bind(short_directory, folder / "missing"))
    await servers.ended((a_bind(short_directory, folder),))


async def test_a_server_that_does_not_end_is_ended(short_directory: Path, folder: Path) -> None:
    async with served(short_directory, folder) as (_, pid):
        os.kill(pid, signal.SIGSTOP)
    await eventually(lambda: not Path(f"/proc/{pid}/exe").exists())


@as_root
def test_a_user_serves_what_the_user_may_open(short_directory: Path, folder: Path) -> None:
    """The service is not root: there may be a view of the server's own, and never more rights."""
    for path in (short_directory, folder):
        path.chmod(0o755)
        os.chown(path, OWNER, OWNER)
    (folder / "roots").write_text("root's")
    (folder / "roots").chmod(0o600)
    become = (  # with everything loaded: that user may not be able to read this checkout
        "import ctypes, locale, os, shutil, sys;"
        "import services.vm_runner.file_server.__main__ as server; os.setgroups([]);"
        f"os.setresgid({OWNER}, {OWNER}, {OWNER}); os.setresuid({OWNER}, {OWNER}, {OWNER});"
        "ctypes.CDLL(None).prctl(4, 1, 0, 0, 0);"  # dumpable, as one that its user started
        "sys.exit(server.main())"
    )
    command = [
        sys.executable, "-c", become, "--name", "x", "--directory", str(short_directory),
        "--pid-file", "x.pid", "--socket", "bind0.sock", "--source", str(folder),
    ]  # fmt: skip
    with a_vmm(short_directory) as listening:
        (short_directory / "bind0.sock").chmod(0o777)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT)
        assert process.stdout is not None
        with process.stdout as stdout:
            assert stdout.read() == b"ready"
        connection, _ = listening.accept()
        with connection:
            guest = over(connection)
            guest.init()
            guest.create(b"made")
            fails(errno.EACCES, lambda: guest.open(guest.walk("roots").node))
            assert guest.walk("roots").attr.uid == wire.NOBODY
            fields = status(int((short_directory / "x.pid").read_text()))
        assert process.wait(20) == 0
    assert (folder / "made").stat().st_uid == OWNER
    assert (fields["CapEff"], fields["NoNewPrivs"], fields["Seccomp"]) == ("0" * 16, "1", "2")


# ---- what is looked at before a start ----


async def test_what_may_be_bound_is_described(short_directory: Path, folder: Path) -> None:
    servers = a_host(short_directory)
    (folder / ".env").touch()
    (folder / "id_rsa").touch()
    (folder / ".docker").mkdir()
    (folder / ".docker" / "config.json").touch()
    (folder / ".docker" / "Dockerfile").touch()
    (short_directory / "link").symlink_to(folder)
    found = await servers.look(str(short_directory / "link"))
    assert (found.path, found.is_file, found.secrets) == (
        folder,
        False,
        (".docker/config.json", ".env", "id_rsa"),
    )
    assert (await servers.look(str(folder / "a"))).is_file


async def test_what_may_not_be_bound_is_refused(short_directory: Path, folder: Path) -> None:
    home = short_directory / "home"
    (home / "runs").mkdir(parents=True)
    os.mkfifo(folder / "pipe")
    (folder / "to-root").symlink_to("/")
    (folder / "loop").symlink_to("loop")
    servers = a_host(short_directory)
    for source, reason in (
        (folder / "missing", "No such file"),
        (folder / "a" / "x", "Not a directory"),
        (folder / "pipe", "neither"),
        (folder / "loop", "loop|Too many"),
        (folder / "to-root", "root"),
        (Path("/"), "root"),
        (Path("/proc"), "system"),
        (Path("/sys/kernel"), "system"),
        (Path("/dev"), "system"),
        (home, "state"),
        (home / "runs", "state"),
        (short_directory, "state"),
    ):
        with pytest.raises(RequestInvalid, match=f"cannot be bound: .*({reason})"):
            await servers.look(str(source))


# ---- a real kernel ----


@pytest.fixture
def mounted(folder: Path, short_directory: Path) -> Iterator[Path]:
    """The folder, mounted by this machine's kernel through a server."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("this machine's kernel mounts no FUSE here")
    point = short_directory / "mount"
    point.mkdir()
    with a_vmm(short_directory) as listening:
        command = a_host(short_directory, view_required=True).command(
            a_bind(short_directory, folder)
        )
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        connection, _ = listening.accept()
        fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,max_read={wire.MAX_WRITE}"
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"lns", os.fsencode(point), b"fuse", 6, options.encode()) < 0:
            os.close(fuse)
            connection.close()
            process.wait(20)
            pytest.skip(f"FUSE cannot be mounted: {os.strerror(ctypes.get_errno())}")
        relay = threading.Thread(target=carry, args=(fuse, connection))
        relay.start()
        try:
            yield point
        finally:
            assert libc.umount2(os.fsencode(point), 0) == 0
            relay.join(20)
            os.close(fuse)
            connection.close()
            assert process.wait(20) == 0


def carry(fuse: int, connection: socket.socket) -> None:
    """Carries messages until the mount is gone, one after the other."""
    guest = over(connection)
    with contextlib.suppress(OSError):
        while True:
            request = os.read(fuse, wire.MAX_REQUEST)
            answer = guest._exchange(request)
            if int.from_bytes(request[4:8], "little") not in SILENT and answer is not None:
                with contextlib.suppress(FileNotFoundError):  # who asked was killed
                    os.write(fuse, answer)


def run(script: str, where: Path) -> str:
    done = subprocess.run(
        ["sh", "-ec", script], cwd=where, capture_output=True, text=True, timeout=50, check=False
    )
    return done.stdout + done.stderr


def test_a_kernel_reads_back_what_it_wrote(mounted: Path, folder: Path) -> None:
    tree = Path(shutil.__file__).parent / "email"
    out = run(
        f"mkdir copy; tar -C {tree} -cf - . | tar -C copy -xf -; diff -r {tree} copy && echo same;"
        "find copy -name '*.py' | wc -l; mv copy moved; rm -r moved; ls",
        mounted,
    )
    assert out == f"same\n{len(list(tree.rglob('*.py')))}\na\n"
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_a_kernel_follows_links_in_its_own_tree(mounted: Path, folder: Path) -> None:
    (folder / "way-out").symlink_to("../outside")
    (folder.parent / "outside").write_text("outside\n")  # beside the mount, too
    (folder / "inner").symlink_to("a")
    assert run("cat inner way-out", mounted) == "content\noutside\n"


def test_a_kernel_gets_large_files_whole(mounted: Path, folder: Path) -> None:
    data = os.urandom(3 << 20)
    (folder / "big").write_bytes(data)
    out = run("cp big copy; sync copy; cmp big copy && echo same; truncate -s 5 copy", mounted)
    assert out == "same\n"
    assert (folder / "copy").read_bytes() == data[:5]
