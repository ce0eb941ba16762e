"""Directories and files of the host in a real microVM."""

import asyncio
import contextlib
import io
import os
import signal
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2, vm_service_pb2, vm_service_pb2_grpc

from services.chassis.channel import open_channel
from services.chassis.guest_kernels import kernel_cache
from services.chassis.settings import PeerSettings
from services.core.errors import GuestUnreachable
from tests.support.eventually import eventually
from tests.support.materializer import served
from tests.support.microvm import busybox_image, require_microvms, served_runner
from tests.support.processes import started
from tests.support.vm_service import VmClient

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
pb = vm_service_pb2
Run = run_pb2.Run
Mount = run_plan_pb2.VolumeMount
FOREVER = ("tail", "-f", "/dev/null")
OWNER = 54321 if os.geteuid() == 0 else os.geteuid()


def a_bind(source: Path, target: str, *, read_only: bool = False) -> Mount:
    return Mount(kind=Mount.KIND_BIND, source=str(source), target=target, read_only=read_only)


def file_servers(run_id: str) -> list[int]:
    """The processes that serve a run's binds."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (process / "cmdline").read_bytes().split(b"\0")
            if any(one.startswith(f"lns-{run_id}-bind".encode()) for one in arguments):
                found.append(int(process.name))
    return found


async def shell(vm: VmClient, run: Run, script: str) -> str:
    """Runs a script in a run; returns both its outputs, each line without what named the shell."""
    out, err, _ = await vm.execute(run.run_id, "sh", "-c", script)
    return (out + err).decode()


@pytest.fixture
def project(short_directory: Path) -> Path:
    """A directory as a person has it, with what is no business of a run beside it."""
    folder = short_directory / "project"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "main.c").write_text("int main;\n")
    (folder / ".env").write_text("KEY=1\n")
    (short_directory / "outside").write_text("outside\n")
    (folder / "way-out").symlink_to("../outside")
    (folder / "passwd").symlink_to("/etc/passwd")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, OWNER, OWNER, follow_symlinks=False)
    return folder


@pytest.fixture
def data(short_directory: Path) -> Path:
    """A directory to read from."""
    folder = short_directory / "data"
    folder.mkdir()
    (folder / "a").write_text("a\n")
    return folder


@contextlib.asynccontextmanager
async def a_service(home: Path) -> AsyncIterator[VmClient]:
    """Serves vm_runner in a process of its own, which is killed with the block."""
    config = home / "config.yaml"
    config.write_text(
        f"home: {home}\nserver: {{listen: ['unix:{home}/vm.sock']}}\nvm_runner:\n"
        f"  materializer: {{target: 'unix:{home}/materializer.sock'}}\n"
        f"  kernels: {kernel_cache(os.environ)}\n  boot_time: 4m\n"
    )
    peer = PeerSettings(target=f"unix:{home}/vm.sock", timeout=240)
    async with (
        started("services.vm_runner", "--config", str(config)) as process,
        open_channel(peer, pb.DESCRIPTOR) as channel,
    ):
        vm = VmClient(vm_service_pb2_grpc.VmServiceStub(channel))
        await vm.stub.GetHost(pb.GetHostRequest(), wait_for_ready=True)
        yield vm
        process.send_signal(signal.SIGKILL)


async def test_a_run_works_in_folders_of_the_host_whatever_becomes_of_the_service(
    short_directory: Path, project: Path, data: Path
) -> None:
    require_microvms()
    home = short_directory / "home"
    home.mkdir()
    single = short_directory / "config.ini"
    single.write_text("[x]\n")
    binds = [
        a_bind(data, "/work/data", read_only=True),  # below the next one, though named before it
        a_bind(project, "/work"),
        a_bind(single, "/etc/config.ini", read_only=True),
    ]
    async with served(home) as images:
        image = (await busybox_image(images)).composefs_digest
        async with a_service(home) as vm:
            run = await vm.create(*FOREVER, digest=image, volumes=binds, user="joe")
            notices = [event.notice async for event in first_events(vm, run)]
            seen = await shell(
                vm,
                run,
                "cd /work; ls -A; cat src/main.c data/a /etc/config.ini; stat -c %U:%a src . data;"
                "echo new > src/new; mkdir src/dir; chmod 4755 src/new; chown 0 src/new;"
                "stat -c %U:%a src/new; (echo x > data/x; echo x > .env; echo x > /etc/config.ini;"
                "cat .env way-out) 2>&1 | sed 's/.*: //'; head -n 1 passwd",
            )
            servers = file_servers(run.run_id)
            count = "i=0; while :; do i=$((i + 1)); echo $i >> /work/counted; done"
            await shell(vm, run, f"({count}) > /dev/null 2>&1 &")
            await eventually((project / "counted").exists, within=60)
        before = (project / "counted").stat().st_size
        await eventually(lambda: (project / "counted").stat().st_size > before, within=60)
        async with served_runner(home) as vm:
            await reachable(vm, run)
            assert file_servers(run.run_id) == servers
            (project / "from-host").write_text("host\n")
            later = await shell(vm, run, "cat /work/from-host; rm /work/src/main.c")
            copied = await copy_out(vm, run, "/work/src")
            await copy_in(vm, run, "/work", "copied-in", b"from a client\n")
            for pid in servers:
                os.kill(pid, signal.SIGKILL)
            lost = await shell(vm, run, "ls /work; ls /etc/passwd")
            lost_binds = await notices_of_losses(vm, run)
            await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id, force=True))
            left = file_servers(run.run_id)

    assert [line for line in notices if "secrets" in line]
    assert seen.splitlines() == [
        *("data", "passwd", "src", "way-out", "int main;", "a", "[x]"),
        *("joe:755", "joe:755", "joe:755", "joe:755"),
        *("Read-only file system", "Permission denied", "Read-only file system"),
        *("No such file or directory", "No such file or directory"),
        "root:x:0:0:root:/root:/bin/sh",
    ]
    assert later == "host\n"
    assert "/etc/passwd" in lost  # the run goes on without them
    assert "not connected" in lost
    assert lost_binds == {
        f"{source} is bound to {target} no longer, until the run is started again:"
        " its file server ended"  # whose child it was is gone
        for source, target in (
            (data, "/work/data"), (project, "/work"), (single, "/etc/config.ini"),
        )
    }  # fmt: skip
    assert copied == {"src": b"", "src/dir": b"", "src/new": b"new\n"}
    assert (project / "copied-in").read_text() == "from a client\n"
    assert (project / "copied-in").stat().st_uid == OWNER
    # Each bind has a server, and the parent that waits for it.
    assert (len(servers), left) == (6, [])
    made = {name: (project / "src" / name).stat() for name in ("new", "dir")}
    assert {(one.st_uid, one.st_gid) for one in made.values()} == {(OWNER, OWNER)}
    assert made["new"].st_mode & 0o7777 == 0o755
    assert not (project / "src" / "main.c").exists()
    numbers = (project / "counted").read_text().split()
    assert numbers == [str(n + 1) for n in range(len(numbers))]
    assert (project / ".env").read_text() == "KEY=1\n"
    assert single.read_text() == "[x]\n"


async def copy_out(vm: VmClient, run: Run, path: str) -> dict[str, bytes]:
    """Returns what `lns cp` would write: names and contents."""
    request = pb.CopyOutRequest(run=run.run_id, path=path)
    data = b"".join([response.data async for response in vm.stub.CopyOut(request)])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            one.name: file.read() if (file := archive.extractfile(one)) else b"" for one in archive
        }


async def copy_in(vm: VmClient, run: Run, path: str, name: str, content: bytes) -> None:
    """Does what `lns cp` of one file does."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size, info.uid, info.mode = len(content), 1234, 0o644
        archive.addfile(info, io.BytesIO(content))
    call = vm.stub.CopyIn()
    await call.write(pb.CopyInRequest(header=pb.CopyInHeader(run=run.run_id, path=path)))
    await call.write(pb.CopyInRequest(chunk=data.getvalue()))
    await call.write(pb.CopyInRequest(commit=pb.CopyInCommit()))
    await call


async def reachable(vm: VmClient, run: Run) -> None:
    """Waits until a run that was adopted can be reached."""
    while True:
        with contextlib.suppress(GuestUnreachable):
            await shell(vm, run, "true")
            return
        await asyncio.sleep(0.1)


async def notices_of_losses(vm: VmClient, run: Run) -> set[str]:
    """Waits until a run tells that its three binds are lost; returns what it tells."""
    while True:
        notices = {line for line in (await vm.get(run.run_id)).notices if "no longer" in line}
        if len(notices) == 3:
            return notices
        await asyncio.sleep(0.1)


async def first_events(vm: VmClient, run: Run) -> AsyncIterator[run_pb2.RunEvent]:
    """The events of a run until its workload runs."""
    async for event in vm.watch(run.run_id):
        yield event
        if event.state_changed.state == Run.STATE_RUNNING:
            return
