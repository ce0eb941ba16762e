"""Who may touch foreign bytes with what: the rules that keep one way where many would be open."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted(path for folder in ("services", "cli") for path in (ROOT / folder).rglob("*.py"))
TAR_WRITING = {"DIRTYPE", "REGTYPE", "SYMTYPE", "LNKTYPE", "PAX_FORMAT", "TarInfo"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def dotted(node: ast.AST) -> str:
    """`a.b` for an attribute of a name, else nothing."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


def archive_offences(tree: ast.AST) -> Iterator[str]:
    """What a module does with archives that only `services.archives` may do: read them."""
    writing = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) == "tarfile.open":
            modes = [word.value for word in node.keywords if word.arg == "mode"]
            if modes and isinstance(modes[0], ast.Constant) and str(modes[0].value)[0] in "wx":
                writing.add(node.func)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name == "zipfile")
            yield from (
                f"{one.name} as" for one in node.names if one.name == "tarfile" and one.asname
            )
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module for _ in "x" if node.module in ("tarfile", "zipfile"))
            yield from (one.name for one in node.names if one.name == "unpack_archive")
        elif node not in writing and (used := dotted(node)):
            module, _, attribute = used.partition(".")
            if (module == "tarfile" and attribute not in TAR_WRITING) or (
                used == "shutil.unpack_archive"
            ):
                yield used


@pytest.mark.parametrize("path", CODE, ids=name)
def test_archives_are_read_by_the_bounded_reader_alone(path: Path) -> None:
    assert list(archive_offences(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "offence",
    [
        "import tarfile\ntarfile.open('x')",
        "import tarfile\ntarfile.open('x', mode='r|')",
        "import tarfile\ntarfile.open('x', mode=mode)",
        "import tarfile\nopened = tarfile.open",
        "import tarfile\ntarfile.TarFile('x')",
        "import tarfile as t",
        "from tarfile import open",
        "import zipfile",
        "from zipfile import ZipFile",
        "import shutil\nshutil.unpack_archive('x')",
        "from shutil import unpack_archive",
    ],
)
def test_the_rule_of_archives_finds_what_it_forbids(offence: str) -> None:
    assert list(archive_offences(ast.parse(offence))) != []


def test_the_rule_of_archives_lets_them_be_written() -> None:
    fine = "import tarfile\nwith tarfile.open(fileobj=f, mode='w|'): tarfile.TarInfo('x')"

    assert list(archive_offences(ast.parse(fine))) == []
