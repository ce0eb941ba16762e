"""What code that runs in a worker of the materializer reaches: the store's directories, no more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.materializer.adapters.workers import Ground, Workers

ROOT = Path(__file__).parents[3]
SOMEBODY = 54321

ATTACK = """
import errno, json, os, sys, threading
from pathlib import Path
from services.materializer.worker_ground import confine
from tests.support.escape_attempts import attempts
read, write, outside = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
obstacle = confine(read=[read], write=[write])
def fails(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"
ran = threading.Thread(target=lambda: None)
ran.start()
ran.join()
print(json.dumps({
    "obstacle": obstacle,
    "pid": os.getpid(),
    "reached": attempts(outside),
    "root": sorted(str(path) for path in Path("/").rglob("*")),
    "reads": (read / "blob").read_text(),
    "writes there": fails(lambda: (read / "blob").write_text("x")),
    "makes there": fails(lambda: (read / "new").touch()),
    "makes a device": fails(lambda: os.mknod(write / "null", 0o20666, os.makedev(1, 3))),
    "writes to its root": fails(lambda: Path("/x").touch()),
    "writes": fails(lambda: (write / "layer").write_text("made")),
    "descriptors": sorted(fd for fd in range(64) if fails(lambda: os.fstat(fd)) == "done"),
    "uid": os.getuid(),
}), flush=True)
"""


@pytest.fixture(params=["root", "a user"])
def user(request: pytest.FixtureRequest) -> int | None:
    """Whom the service belongs to; None is this process's user."""
    if request.param == "root":
        return None
    return SOMEBODY if os.geteuid() == 0 else None


def test_code_that_runs_in_a_worker_has_the_store_and_nothing_of_the_host(
    short_directory: Path, user: int | None
) -> None:
    """Also where a descriptor of the host's root was left open by a mistake."""

    read, write = short_directory / "blobs", short_directory / "work"
    for directory in (short_directory, read, write):
        directory.mkdir(exist_ok=True)
        directory.chmod(0o755)
    (read / "blob").write_text("hostile bytes")
    become = ""
    if user is not None:
        for path in (read, write, read / "blob"):
            os.chown(path, user, user)
        # With everything loaded: that user may not be able to read this checkout.
        become = (
            "import ctypes, locale, shutil;"
            "import services.materializer.worker, tests.support.escape_attempts;"
            f"import os; os.setgroups([]); os.setresgid({user}, {user}, {user});"
            f"os.setresuid({user}, {user}, {user}); ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"
        )
    victim = subprocess.Popen(["sleep", "60"], user=user, group=user)
    outside = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        tried = subprocess.run(
            [sys.executable, "-c", become + ATTACK, str(read), str(write), str(victim.pid)],
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT}:{ROOT}/protos/gen"},
            pass_fds=[outside],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(outside)
        victim.kill()
        victim.wait()

    assert tried.stderr == ""
    found = json.loads(tried.stdout)
    places = {str(place) for path in (read, write) for place in (path, *path.parents)} - {"/"}
    assert set(found.pop("root")) == places | {str(read / "blob")}
    assert found.pop("uid") == (os.geteuid() if user is None else user)
    assert found == {
        "obstacle": "",
        "pid": 1,
        "reached": [],
        "reads": "hostile bytes",
        "writes there": "EROFS",
        "makes there": "EROFS",
        "makes a device": "EPERM",
        "writes to its root": "EROFS",
        "writes": "done",
        "descriptors": [0, 1, 2],
    }
    assert (write / "layer").read_text() == "made"


async def test_a_worker_is_confined_as_the_kernel_says(tmp_path: Path) -> None:
    before = set(_children(os.getpid()))
    async with Workers(1, Ground(write=[tmp_path])) as workers:
        (outer,) = set(_children(os.getpid())) - before
        with pytest.raises(Exception, match="no such job"):
            await workers.run("no such job", {})
        (inner,) = _children(outer)
        status = _status(inner)
        proc = Path("/proc", str(inner))

        for name in ("mnt", "net", "ipc", "uts", "pid", "user"):
            assert _namespace(inner, name) != _namespace(os.getpid(), name), name
        assert {status[name] for name in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb")} == {
            "0" * 16
        }
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert status["NSpid"].split()[-1] == "1"
        limits = (proc / "limits").read_text()
        assert "Max core file size        0 " in limits
        assert "Max open files            4096 " in limits
        assert "unlimited" not in next(x for x in limits.splitlines() if "Max data size" in x)
        targets = [str((proc / "fd" / one.name).readlink()) for one in (proc / "fd").iterdir()]
        assert not [target for target in targets if "/proc" in target]


def _namespace(pid: int, name: str) -> Path:
    return Path("/proc", str(pid), "ns", name).readlink()


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(child) for child in text.split()]


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
