"""`lns cp` in twenty forms, each as `docker cp` has it: what lands where, in a run and here.

The agent runs as a process on this machine, so a path of the run is one of the test's directory.
The right-hand sides were taken from `docker cp` (Docker 20.10).
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from lns.vm.v1 import run_pb2

from cli.app import dispatch
from tests.support.vm_service import VmClient, VmWorld

Tree = dict[str, str]


def tree(root: Path) -> Tree:
    """What is below a directory: files by content, links as `-> target`, directories as `/`."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        elif path.is_dir():
            found[f"{name}/"] = ""
        else:
            found[name] = path.read_text()
    return found


def fill(root: Path, side: str) -> None:
    """Makes what both sides have: a tree, a directory, a file, and links to each."""
    (root / "src" / "sub").mkdir(parents=True)
    (root / "src" / "a").write_text(f"{side} a")
    (root / "src" / "sub" / "b").write_text(f"{side} b")
    (root / "file").write_text(f"{side} file")
    (root / "dir").mkdir()
    (root / "dir" / "kept").write_text("kept")
    (root / "to-dir").symlink_to("dir")
    (root / "to-file").symlink_to("file")
    (root / "to-src").symlink_to("src")
    (root / "dangling").symlink_to("made")


SUBTREE = {"a": "from a", "sub/": "", "sub/b": "from b"}


def below(name: str) -> Tree:
    return {f"{name}/": "", **{f"{name}/{key}": value for key, value in SUBTREE.items()}}


# source, target, what is new or changed on the target's side (None: refused)
FORMS: list[tuple[str, str, Tree | None]] = [
    ("file", "new", {"new": "from file"}),
    ("file", "file", {"file": "from file"}),
    ("file", "dir", {"dir/file": "from file"}),
    ("file", "dir/", {"dir/file": "from file"}),
    ("file", "dir/other", {"dir/other": "from file"}),
    ("file", "to-dir", {"dir/file": "from file"}),  # a link to a directory is that directory
    ("file", "to-dir/", {"dir/file": "from file"}),
    ("file", "to-file", {"file": "from file"}),  # a link that was named is written through
    ("file", "dangling", {"made": "from file"}),
    ("file", "missing/", None),
    ("file", "missing/x", None),
    ("file", "file/", None),
    ("src", "new", below("new")),
    ("src", "new/", below("new")),
    ("src", "dir", below("dir/src")),
    ("src/", "dir", below("dir/src")),
    ("src/.", "dir", {f"dir/{name}": value for name, value in SUBTREE.items()}),
    ("src/.", "new", below("new")),
    ("src", "file", None),
    ("src", "to-dir", below("dir/src")),
    ("to-src", "new", {"new": "-> src"}),  # a link is copied as a link
    ("to-src/", "new", below("new")),
    ("to-src/.", "dir", {f"dir/{name}": value for name, value in SUBTREE.items()}),
    ("dangling", "new", {"new": "-> made"}),
    ("missing", "new", None),
    ("file/", "new", None),
    (".", "new/", {}),
]


@pytest.fixture
async def copy(vm: VmClient, world: VmWorld) -> Callable[..., "asyncio.Future[int]"]:
    run = await vm.shell("sleep 300", options=run_pb2.RunOptions(name="r"))
    await vm.until(run.run_id, run_pb2.Run.STATE_RUNNING)
    environment = {
        "HOME": str(world.home),
        "LNS_ENDPOINT_VM_RUNNER": f"unix:{world.home}/vm.sock",
    }

    def copied(*arguments: str) -> "asyncio.Future[int]":
        return asyncio.ensure_future(asyncio.to_thread(dispatch, ["cp", *arguments], environment))

    return copied


@pytest.mark.parametrize("direction", ["in", "out"])
async def test_a_copy_lands_where_docker_lets_it_land(
    copy: Callable[..., "asyncio.Future[int]"], tmp_path: Path, direction: str
) -> None:
    wrong = []
    for number, (source, target, changes) in enumerate(FORMS):
        here, there = tmp_path / f"{number}-source", tmp_path / f"{number}-target"
        fill(here, "from")
        fill(there, "to")
        before = tree(there)
        start, end = f"{here}/{source}", f"{there}/{target}"
        code = await copy(
            f"r:{start}" if direction == "out" else start,
            f"r:{end}" if direction == "in" else end,
        )
        after = tree(there)
        whole = {"new/": "", **{f"new/{name}": value for name, value in tree(here).items()}}
        expected = {**before, **((whole if source == "." else changes) or {})}
        if (after, code == 0) != (expected, changes is not None):
            odd = {k: v for k, v in after.items() if expected.get(k) != v} or expected
            wrong.append((source, target, code, odd))

    assert wrong == []


@pytest.mark.parametrize("direction", ["in", "out"])
async def test_what_is_copied_merges_with_what_exists_and_follows_no_link_below_it(
    copy: Callable[..., "asyncio.Future[int]"], tmp_path: Path, direction: str
) -> None:
    here, there = tmp_path / "source", tmp_path / "target"
    fill(here, "from")
    (there / "src").mkdir(parents=True)
    (there / "src" / "mine").write_text("mine")
    (there / "src" / "a").symlink_to("../precious")
    (there / "precious").write_text("precious")

    for _ in range(2):
        code = await copy(
            f"r:{here}/src" if direction == "out" else f"{here}/src",
            f"r:{there}" if direction == "in" else str(there),
        )
        assert code == 0

    assert tree(there) == {**below("src"), "src/mine": "mine", "precious": "precious"}


@pytest.mark.parametrize("direction", ["in", "out"])
async def test_names_of_one_file_are_names_of_one_file_afterwards(
    copy: Callable[..., "asyncio.Future[int]"], tmp_path: Path, direction: str
) -> None:
    here, there = tmp_path / "source", tmp_path / "target"
    (here / "src" / "sub").mkdir(parents=True)
    (here / "src" / "a").write_text("shared")
    (here / "src" / "sub" / "b").hardlink_to(here / "src" / "a")
    (here / "elsewhere").hardlink_to(here / "src" / "a")
    there.mkdir()

    code = await copy(
        f"r:{here}/src" if direction == "out" else f"{here}/src",
        f"r:{there}" if direction == "in" else str(there),
    )

    assert code == 0
    assert tree(there / "src") == {"a": "shared", "sub/": "", "sub/b": "shared"}
    assert (there / "src" / "a").samefile(there / "src" / "sub" / "b")
    assert (there / "src" / "a").stat().st_nlink == 2


@pytest.mark.parametrize("direction", ["in", "out"])
async def test_a_file_and_a_directory_do_not_replace_each_other(
    copy: Callable[..., "asyncio.Future[int]"], tmp_path: Path, direction: str
) -> None:
    here, there = tmp_path / "source", tmp_path / "target"
    fill(here, "from")
    (there / "src" / "a").mkdir(parents=True)
    (there / "src" / "sub").write_text("a file")

    code = await copy(
        f"r:{here}/src" if direction == "out" else f"{here}/src",
        f"r:{there}" if direction == "in" else str(there),
    )

    assert code == 1
    assert (there / "src" / "a").is_dir()
    assert (there / "src" / "sub").read_text() == "a file"
