"""Packing real trees: what survives, and that nothing else makes a difference."""

import io
import os
import socket
import tarfile
import tempfile
from pathlib import Path

import pytest

from lns.client.content.packing import pack_content
from services.core.errors import RequestInvalid


def pack(source: Path) -> tuple[str, dict[str, tarfile.TarInfo]]:
    """Packs a tree; returns the digest and the members of the layer."""
    output = io.BytesIO()
    layer = pack_content(source, output)
    with tarfile.open(fileobj=io.BytesIO(output.getvalue()), mode="r:gz") as archive:
        return layer.descriptor.digest, {member.name: member for member in archive}


def make_tree(root: Path, names: list[str], umask: int) -> Path:
    """Makes a tree, its files in the given order and under a umask."""
    before = os.umask(umask)
    try:
        root.mkdir()
        for name in names:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"content of {name}")
        (root / "empty").mkdir()
        (root / "link").symlink_to("a/b")
    finally:
        os.umask(before)
    (root / "run").write_text("#!/bin/sh")
    (root / "run").chmod(0o700)
    return root


def test_order_umask_times_and_place_make_no_difference(tmp_path: Path) -> None:
    names = ["a/b", "a/c", "a-b", "z", "a/d/e", "é"]
    one = make_tree(tmp_path / "one", names, 0o022)
    two = make_tree(tmp_path / "two", names[::-1], 0o077)
    os.utime(two / "z", (1, 1))
    (two / "z").chmod(0o600)

    assert pack(one)[0] == pack(two)[0]


def test_what_survives_is_kept_and_the_rest_is_not(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", ["a/b", "z"], 0o022)
    (root / "z").chmod(0o4644)
    os.link(root / "a" / "b", root / "hard")
    (root / "dangling").symlink_to("/nowhere")

    _, members = pack(root)

    assert sorted(members) == ["a", "a/b", "dangling", "empty", "hard", "link", "run", "z"]
    assert (members["run"].mode, members["z"].mode) == (0o755, 0o644)
    assert members["hard"].islnk()
    assert members["hard"].linkname == "a/b"
    assert members["dangling"].linkname == "/nowhere"
    assert members["empty"].isdir()


def test_one_file_is_packed_under_its_name(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("x")

    assert list(pack(tmp_path / "notes.md")[1]) == ["notes.md"]


def test_lnsignore_leaves_out_and_is_left_out(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "tree", ["a/b.pyc", "a/c", "build/x", "keep.pyc"], 0o022)
    (root / ".lnsignore").write_text("*.pyc\n!keep.pyc\nbuild/\nlink\nrun\nempty\n")

    assert sorted(pack(root)[1]) == ["a", "a/c", "keep.pyc"]


def test_a_link_to_the_tree_is_followed_but_none_inside(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", ["a/b"], 0o022)
    (tmp_path / "tree" / "up").symlink_to("..")
    (tmp_path / "alias").symlink_to("tree")

    assert pack(tmp_path / "alias")[1].keys() == pack(tmp_path / "tree")[1].keys()
    assert pack(tmp_path / "tree")[1]["up"].issym()


def test_special_files_are_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(RequestInvalid, match="'pipe'") as caught:
        pack(tmp_path)

    assert ".lnsignore" in caught.value.hint


def test_a_socket_is_refused_unless_it_is_ignored(short_directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(short_directory / "sock"))

        with pytest.raises(RequestInvalid, match="'sock'"):
            pack(short_directory)
        (short_directory / ".lnsignore").write_text("sock\n")
        assert pack(short_directory)[1] == {}


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).touch()

    with pytest.raises(RequestInvalid, match="not UTF-8"):
        pack(tmp_path)


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestInvalid, match="No such file"):
        pack(tmp_path / "nothing")


def test_a_file_that_grows_while_it_is_packed_is_refused(tmp_path: Path) -> None:
    growing = tmp_path / "log"
    growing.write_bytes(bytes(3 << 20))

    class Growing(io.BytesIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]  # bytes are all there is
            with growing.open("ab") as file:
                file.write(b"more")
            return super().write(data)

    with pytest.raises(RequestInvalid, match="changed while it was packed"):
        pack_content(growing, Growing())


def test_packing_into_a_spool_file_works(tmp_path: Path) -> None:
    make_tree(tmp_path / "tree", ["a"], 0o022)

    with tempfile.TemporaryFile() as spool:
        layer = pack_content(tmp_path / "tree", spool)
        assert spool.tell() == layer.descriptor.size
