"""Policy files on disk: whole at every moment, no edit lost."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.chassis.edited_files import MAX_BYTES, edit_file, read_edited_file
from services.core.errors import LimitExceeded

EDITOR = """
import sys
from pathlib import Path
from services.chassis.edited_files import edit_file
for number in range(10):
    line = f"{sys.argv[2]}.{number}\\n".encode()
    edit_file(Path(sys.argv[1]), lambda text: text + line)
"""


def test_a_file_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    assert read_edited_file(tmp_path / "lns-policy.yaml") == b""


def test_edits_of_threads_and_processes_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "lns-policy.yaml"

    def edit(name: str) -> None:
        subprocess.run([sys.executable, "-c", EDITOR, str(path), name], check=True)

    def edit_here(name: str) -> None:
        for number in range(10):
            line = f"{name}.{number}\n".encode()
            edit_file(path, lambda text, line=line: text + line)

    with ThreadPoolExecutor() as threads:
        list(
            threads.map(
                lambda one: one[0](one[1]), [(edit, "a"), (edit_here, "b"), (edit_here, "c")]
            )
        )

    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(f"{name}.{number}" for name in "abc" for number in range(10))
    assert [one.name for one in tmp_path.iterdir()] == ["lns-policy.yaml"]


def test_a_link_stays_and_the_mode_too(tmp_path: Path) -> None:
    target = tmp_path / "shared.yaml"
    target.write_bytes(b"old\n")
    target.chmod(0o640)
    link = tmp_path / "lns-policy.yaml"
    link.symlink_to(target)

    edit_file(link, lambda text: text + b"new\n")

    assert link.is_symlink()
    assert target.read_bytes() == b"old\nnew\n"
    assert target.stat().st_mode & 0o7777 == 0o640


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "lns-policy.yaml"
    path.write_bytes(b"old\n")

    with pytest.raises(ZeroDivisionError):
        edit_file(path, lambda text: bytes(1 // 0) + text)

    assert path.read_bytes() == b"old\n"


def test_an_edit_that_changes_nothing_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lns-policy.yaml"
    path.write_bytes(b"old\n")
    inode = path.stat().st_ino

    assert edit_file(path, lambda text: text) == b"old\n"
    assert path.stat().st_ino == inode


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lns-policy.yaml"
    with path.open("wb") as file:
        os.truncate(file.fileno(), MAX_BYTES + 1)

    with pytest.raises(LimitExceeded, match="larger than 1 MiB"):
        read_edited_file(path)
