"""What a workload finds in its microVM, and what it cannot do there.

One run serves the tests of this module; each looks at it through processes of its own.
"""

import asyncio
import hashlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.core.errors import VmFailed
from tests.support.microvm import (
    BIG,
    FILES_OF_ARTIFACT,
    PROTECTED,
    busybox_image,
    microvms,
    require_microvms,
)
from tests.support.vm_service import VmClient

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
pb = vm_service_pb2
Run = run_pb2.Run


WORKDIR, VOLUME = "/made/for/it", "/data/of/the/image"


class Guest:
    """One run, through whose shell the tests look."""

    def __init__(self, vm: VmClient, run_id: str) -> None:
        self.vm = vm
        self.run_id = run_id

    async def pids(self) -> int:
        """Returns how many processes there are."""
        response = await self.vm.stub.GetStats(pb.GetStatsRequest(runs=[self.run_id]))
        return response.stats[0].pids

    async def sh(self, script: str, *, user: str = "", workdir: str = "", tty: bool = False) -> str:
        """Runs a script; returns both outputs together."""
        spec = pb.ExecSpec(argv=["sh", "-c", script], user=user, workdir=workdir, tty=tty)
        start = pb.AttachStart(run=self.run_id, exec=spec)
        async with self.vm.attach(start) as terminal:
            out, err, _ = await terminal.rest()
        return (out + err).decode().strip()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest() -> AsyncIterator[Guest]:
    require_microvms()
    home = Path(tempfile.mkdtemp(prefix="lns", dir="/tmp"))
    try:
        async with microvms(home) as (vm, images):
            image = await busybox_image(images)
            run = await vm.create(
                *("tail", "-f", "/dev/null"),
                digest=image.composefs_digest,
                options=run_pb2.RunOptions(name="the-guest", pids_limit=100),
                more=run_plan_pb2.RunPlan(workdir=WORKDIR, image_volumes=[VOLUME]),
            )
            await vm.until(run.run_id, Run.STATE_RUNNING)
            yield Guest(vm, run.run_id)
            await vm.stub.RemoveRun(pb.RemoveRunRequest(run=run.run_id, force=True))
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def test_the_content_of_the_image_is_exact(guest: Guest) -> None:
    digest = hashlib.sha256(BIG).hexdigest()

    assert await guest.sh("sha256sum < /opt/big") == f"{digest}  -"
    assert await guest.sh("cat /opt/joes; stat -c ' %u %a %s' /opt/joes") == "mine 1000 600 4"


async def test_the_artifact_is_at_its_path(guest: Guest) -> None:
    assert await guest.sh(f"cat {PROTECTED}/a.txt") == FILES_OF_ARTIFACT["a.txt"].decode().strip()
    assert await guest.sh(f"wc -c < {PROTECTED}/sub/b.txt") == "100000"


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", "uid=0(root) gid=0(root) groups=0(root)"),
        ("joe", "uid=1000(joe) gid=1000(joe) groups=10(wheel),1000(joe)"),
        ("1000", "uid=1000(joe) gid=1000(joe) groups=10(wheel),1000(joe)"),
        ("joe:audio", "uid=1000(joe) gid=29(audio) groups=29(audio)"),
        ("4711", "uid=4711 gid=0(root) groups=0(root)"),
        ("4711:4712", "uid=4711 gid=4712 groups=4712"),
    ],
)
async def test_users_and_groups_are_those_of_the_image(
    guest: Guest, user: str, expected: str
) -> None:
    found = await guest.sh("id", user=user)

    assert sorted(found.replace("groups=", "").replace(",", " ").split()) == sorted(
        expected.replace("groups=", "").replace(",", " ").split()
    )


@pytest.mark.parametrize("user", ["nobody-knows", "joe:nobody-knows"])
async def test_an_unknown_user_is_reported(guest: Guest, user: str) -> None:
    with pytest.raises(VmFailed, match=r"user|group"):
        await guest.sh("true", user=user)


async def test_home_and_the_rest_of_the_environment_are_set(guest: Guest) -> None:
    found = await guest.sh("env", user="joe")
    env = dict(line.split("=", 1) for line in found.splitlines())

    assert env["HOME"] == "/home/joe"
    assert env["HOSTNAME"] == "the-guest"
    assert "/bin" in env["PATH"]


async def test_the_directories_that_an_image_wants_are_made(guest: Guest) -> None:
    """Its working directory, and what it calls volumes; not that of a process beside it."""
    assert await guest.sh("pwd") == WORKDIR
    assert await guest.sh(f"stat -c '%F %a' {VOLUME}; touch {VOLUME}/x; ls {VOLUME}") == (
        "directory 755\nx"
    )
    said = await guest.sh("true", workdir="/missing")
    assert said == "lns: sh: its working directory: No such file or directory"


async def test_the_root_is_one_file_system(guest: Guest) -> None:
    """One device over all layers, so that `du -x`, `find -xdev` and `cp -x` leave nothing out."""
    await guest.sh("touch /etc/made-in-the-run; echo >> /etc/passwd")
    # Some files of /etc are mounts of their own, as in any container.
    devices = await guest.sh(
        "cd /etc; for f in / /opt /opt/* . *; do"
        ' grep -q " /etc/$f " /proc/mounts || stat -c %d "$f"; done | sort -u | wc -l'
    )
    assert devices == "1"
    assert await guest.sh("du -sx /opt | cut -f1") == await guest.sh("du -s /opt | cut -f1")


async def test_the_machine_has_a_name_and_its_own_hosts(guest: Guest) -> None:
    assert await guest.sh("hostname; cat /etc/hostname") == "the-guest\nthe-guest"
    assert "127.0.0.1\tlocalhost the-guest" in await guest.sh("cat /etc/hosts")


async def test_the_clock_is_the_host_s_after_a_boot_and_after_a_pause(guest: Guest) -> None:
    async def tell() -> None:
        before = int(time.time())
        shown = int(await guest.sh("date +%s"))
        assert before - 1 <= shown <= time.time() + 1

    await tell()
    await guest.vm.stub.PauseRun(pb.PauseRunRequest(run=guest.run_id))
    await asyncio.sleep(4)
    await guest.vm.stub.ResumeRun(pb.ResumeRunRequest(run=guest.run_id))
    await tell()


async def test_no_network_card_exists_and_a_connection_waits_for_a_user(guest: Guest) -> None:
    interfaces = await guest.sh("ls /sys/class/net")
    waiting = await guest.sh("nc -w 1 models.example.com 80 </dev/null")
    refused = await guest.sh("nc -w 1 192.0.2.1 80 </dev/null")

    assert interfaces == "lo"
    assert "timed out" in waiting
    assert "refused" in refused  # of a range that nobody is asked about


async def test_loopback_works(guest: Guest) -> None:
    script = "(echo hello | nc -l -p 7000 127.0.0.1) & sleep 0.5; nc 127.0.0.1 7000 </dev/null"

    assert "hello" in await guest.sh(script)


async def test_a_terminal_is_one(guest: Guest) -> None:
    assert (await guest.sh("tty; stty size", tty=True)).splitlines() == ["/dev/pts/0", "24 80"]


async def test_the_mounts_are_listed_where_old_programs_look(guest: Guest) -> None:
    assert await guest.sh("readlink /etc/mtab; grep -c ' / ' /etc/mtab") == "/proc/mounts\n1"


async def test_devices_are_the_few_that_a_program_expects(guest: Guest) -> None:
    devices = (await guest.sh("ls /dev")).split()

    assert sorted(devices) == [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm",
        "stderr", "stdin", "stdout", "tty", "urandom", "zero",
    ]  # fmt: skip
    assert await guest.sh("echo x > /dev/shm/f && cat /dev/shm/f && rm /dev/shm/f") == "x"


async def test_orphans_are_reaped(guest: Guest) -> None:
    await guest.sh("for n in 1 2 3 4 5; do (sleep 0.05 &) ; done; sleep 0.5")

    orphans = "for s in /proc/[0-9]*/status; do grep -q '^PPid:.1$' $s && grep State $s; done"
    assert "Z" not in await guest.sh(orphans)


async def test_the_agent_is_out_of_the_workload_s_sight_and_reach(guest: Guest) -> None:
    assert await guest.sh("cat /proc/1/comm") == "lns-init"
    await guest.sh("kill -9 1; kill -STOP 1")
    for path in ("root", "cwd", "exe", "mem", "environ"):
        assert "ermission denied" in await guest.sh(f"cat /proc/1/{path} /proc/1/{path}/")


async def test_root_has_the_rights_of_a_container_and_no_more(guest: Guest) -> None:
    kept = "00000000a00425fb"  # Docker's default set without MKNOD

    assert await guest.sh("grep -h Cap /proc/self/status | awk '{print $2}'") == "\n".join(
        ["0000000000000000", kept, kept, kept, "0000000000000000"]
    )


@pytest.mark.parametrize(
    "attempt",
    [
        "mount -t tmpfs none /mnt",
        "mount -o remount,rw /sys",
        "umount /proc",
        "mknod /tmp/disk b 254 0",
        "echo 1 > /proc/sys/kernel/panic",
        "echo b > /proc/sysrq-trigger",
        "echo 0 > /sys/kernel/mm/ksm/run",
        "echo 1 > /sys/fs/cgroup/pids.max",
        "head -c 1 /proc/kcore | grep .",
        "hostname other",
        "dd if=/dev/vda of=/dev/null count=1",
    ],
)
async def test_the_machine_cannot_be_turned_over(guest: Guest, attempt: str) -> None:
    script = f"mkdir -p /mnt; ({attempt}) >/dev/null 2>&1 && echo done || echo refused"

    assert await guest.sh(script) == "refused"


ATTACKS = [
    "echo x > $P/a.txt",
    "echo x >> $P/sub/b.txt",
    "rm -f $P/a.txt",
    "rm -rf $P",
    "mv $P /tmp/stolen",
    "mv $P/sub /tmp/stolen",
    "mv /etc/agent /etc/other",
    "mv /etc /other",
    "rmdir /etc/agent",
    "touch $P/new",
    "mkdir $P/new",
    "ln -s /tmp $P/link",
    "ln $P/a.txt /tmp/hard && echo x > /tmp/hard",
    "chmod 777 $P/a.txt",
    "chown joe $P/a.txt",
    "touch -d 2001-01-01 $P/a.txt",
    "mount -t tmpfs none $P",
    "mount --bind /tmp $P",
    "umount $P",
    "umount -l $P",
    "mount -o remount,rw $P",
    "mount --bind /tmp /etc/agent",
    "cp /opt/big $P/a.txt",
    "cd $P && echo x > a.txt",
    "echo x > /proc/self/root$P/a.txt",
    "echo x > /proc/1/root$P/a.txt",
    "mkdir -p /tmp/r && chroot / sh -c 'echo x > '$P'/a.txt'",
    "dd if=/dev/zero of=$P/a.txt",
]


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_protected_mount_stays_as_it_is_whatever_root_tries(
    guest: Guest, attack: str
) -> None:
    state = f"cd {PROTECTED} && find . | sort && stat -c '%n %a %u %Y' a.txt && sha256sum * sub/*"
    before = await guest.sh(state)
    attempt = await guest.sh(f"P={PROTECTED}; ({attack}) >/dev/null 2>&1 && echo possible")

    assert attempt == ""
    assert await guest.sh(state) == before


async def test_what_is_not_protected_is_the_workload_s(guest: Guest) -> None:
    assert await guest.sh("echo mine > /opt/big; cat /opt/big") == "mine"
    assert await guest.sh("echo x > /etc/new; rm /opt/plain; ls /opt; cat /etc/new") == (
        "big\njoes\nx"
    )
    assert await guest.sh("echo x > /etc/agent/beside; cat /etc/agent/beside") == "x"


async def test_processes_are_limited_in_number(guest: Guest) -> None:
    # They end when their input does; two shells, since one that cannot fork ends.
    script = (
        "exec 3<&0; (n=0; while [ $n -lt 150 ]; do cat <&3 > /dev/null & n=$((n + 1)); done) 2>&1;"
        "echo full; read -r line"
    )
    start = pb.AttachStart(
        run=guest.run_id, exec=pb.ExecSpec(argv=["sh", "-c", script]), stdin=True
    )
    async with guest.vm.attach(start) as terminal:
        refused = await terminal.until(b"full")
        pids = await guest.pids()
        await terminal.send(stdin_closed=pb.StdinClosed())
        await terminal.rest()

    assert b"can't fork" in refused
    assert 90 <= pids <= 100
    while True:
        if await guest.pids() < 20:
            break
        await asyncio.sleep(0.1)


async def test_a_process_that_takes_too_much_memory_is_ended_alone(guest: Guest) -> None:
    before = (await guest.vm.get(guest.run_id)).oom_kills
    _, _, status = await guest.vm.execute(guest.run_id, "tail", "/dev/zero")

    assert (status.code, status.oom_killed) == (137, True)
    assert (await guest.vm.get(guest.run_id)).oom_kills == before + 1
    assert await guest.sh("echo fine") == "fine"
    assert (await guest.vm.get(guest.run_id)).state == Run.STATE_RUNNING


async def test_a_full_disk_is_the_run_s_own(guest: Guest) -> None:
    full = await guest.sh("dd if=/dev/zero of=/tmp/fill bs=1M 2>&1; df -m / | tail -n 1")

    assert "No space left" in full
    assert await guest.sh("rm /tmp/fill; echo fine > /tmp/x; cat /tmp/x") == "fine"


async def test_stats_tell_what_is_used(guest: Guest) -> None:
    stats = (await guest.vm.stub.GetStats(pb.GetStatsRequest(runs=[guest.run_id]))).stats[0]

    assert stats.cpu_time.ToTimedelta().total_seconds() > 0.5
    assert 30 << 20 < stats.memory_bytes < 1 << 30
    assert stats.disk_bytes > 0
    assert stats.channel_in_bytes > 1000
    assert 2 <= stats.pids <= 100
