"""The command that is compatible with `mkcomposefs --from-file`."""

import io
import json
import sys
from pathlib import Path

import pytest

from services.materializer.composefs.verity import verity_digest
from services.materializer.mkcomposefs import main
from tests.support.dumps import boundary_dumps, dump, line, malformed_dumps

GOLDEN = json.loads(Path("tests/data/composefs/digests.json").read_text("ascii"))
WHITEOUT = dict(boundary_dumps())["whiteout"]


@pytest.fixture
def dump_file(tmp_path: Path) -> Path:
    path = tmp_path / "tree.dump"
    path.write_bytes(WHITEOUT)
    return path


@pytest.mark.parametrize(
    ("options", "version"),
    [
        ([], "default"),
        (["--min-version=1", "--max-version=1"], "v1"),
        (["--min-version=1"], "v1"),
        (["--max-version=1"], "default"),
        (["--min-version=0"], "v0"),
        (["--max-version=0"], "v0"),
    ],
)
def test_versions_are_chosen_as_the_c_tool_does(
    dump_file: Path, capsys: pytest.CaptureFixture[str], options: list[str], version: str
) -> None:
    assert main(["--from-file", *options, "--print-digest-only", str(dump_file)]) == 0

    assert capsys.readouterr().out == GOLDEN["whiteout"][version] + "\n"


def test_an_image_is_written_and_its_digest_printed(
    dump_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image"

    assert main(["--from-file", "--print-digest", str(dump_file), str(image)]) == 0

    assert capsys.readouterr().out == verity_digest(image.read_bytes()).hex() + "\n"
    assert image.stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image", "tree.dump"]


def test_dump_and_image_may_be_streams(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(WHITEOUT)))

    assert main(["--from-file", "--min-version=1", "-", "-"]) == 0

    assert verity_digest(capsysbinary.readouterr().out).hex() == GOLDEN["whiteout"]["v1"]


@pytest.mark.parametrize("problem", [name for name, _ in malformed_dumps()][::7])
def test_a_malformed_dump_gives_one_line_and_no_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], problem: str
) -> None:
    source, image = tmp_path / "dump", tmp_path / "image"
    source.write_bytes(dict(malformed_dumps())[problem])

    assert main(["--from-file", str(source), str(image)]) == 1

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("mkcomposefs: ")
    assert printed.err.count("\n") == 1
    assert not image.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--from-file"],
        ["DUMP", "image"],
        ["--from-file", "DUMP"],
        ["--from-file", "DUMP", "a", "b"],
        ["--from-file", "--print-digest-only", "DUMP", "image"],
        ["--from-file", "--min-version=2", "DUMP", "image"],
        ["--from-file", "--max-version=9", "DUMP", "image"],
        ["--from-file", "--min-version=x", "DUMP", "image"],
        ["--from-file", "--min-version=-1", "DUMP", "image"],
        ["--from-file", "--unknown", "DUMP", "image"],
        ["--from-file", "missing", "image"],
        ["--from-file", "DUMP", "missing/image"],
    ],
)
def test_a_wrong_command_line_gives_one_line(
    dump_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main([str(dump_file) if one == "DUMP" else one for one in arguments]) == 1

    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tree.dump"]


def test_an_image_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, image = tmp_path / "dump", tmp_path / "image"
    source.write_bytes(dump(line("/a"), line("/a")))
    image.write_bytes(b"old")

    assert main(["--from-file", str(source), str(image)]) == 1

    assert "already exists" in capsys.readouterr().err
    assert image.read_bytes() == b"old"
