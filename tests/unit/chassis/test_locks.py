import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from services.chassis.locks import owner_lock
from services.core.errors import InUse

HOLDER = """
import sys, time
from pathlib import Path
from services.chassis.locks import owner_lock
with owner_lock(Path(sys.argv[1]), what="x"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_owner_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    with (
        owner_lock(path, what="the store"),
        pytest.raises(InUse, match=rf"the store .*\({os.getpid()}\)") as caught,
        owner_lock(path, what="the store"),
    ):
        pass

    assert caught.value.metadata == {"lock": str(path), "pid": str(os.getpid())}
    assert caught.value.hint


def test_the_lock_is_free_after_its_owner_left_or_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with owner_lock(path, what="x"):
        pass
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ".:protos/gen"},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InUse, match=str(holder.pid)), owner_lock(path, what="x"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()

    with owner_lock(path, what="x"):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_link_in_the_place_of_the_lock_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic links"), owner_lock(tmp_path / "lock", what="x"):
        pass

    assert not (tmp_path / "elsewhere").exists()
