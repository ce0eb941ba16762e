"""Who may touch foreign bytes with what: the rules that keep one way where many would be open."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted(
    path for folder in ("services", "cli", "lns") for path in (ROOT / folder).rglob("*.py")
)
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


WRITERS = {
    "cli/render/writer.py": "the writer itself",
    "cli/render/progress.py": "bars, whose text is made printable there",
    "cli/main.py": "the version, before anything is imported",
    "cli/desk/order.py": "makes the streams that the writer then writes to",
    "cli/terminal.py": "a workload's own output and archives, as bytes",
}
BYTE_WRITERS = {
    "cli/terminal.py",
    "cli/run/console.py",  # a workload's output
    "cli/commands/logs.py",  # the same, from its log
    "cli/commands/cp.py",  # an archive, which is refused to a terminal
    "cli/commands/image.py",  # a dump, which is printable ASCII; an image is refused to a terminal
}
PRINTING = {"click.echo", "click.secho", "click.style", "os.write", "sys.stdout", "sys.stderr"}
BYTE_WRITING = {"write_all", "terminal.write_all"}


def print_offences(tree: ast.AST) -> Iterator[str]:
    """How a module writes to terminals past the writer: prints, or holds a stream to write to."""
    passed_on = {
        argument
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        for argument in node.args
        if node.func.id == "open_reporter"
    }
    asked = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("isatty", "fileno", "flush")
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == "print":
            yield "print"
        elif isinstance(node, ast.ImportFrom) and node.module in ("click", "sys", "os", "rich"):
            names = {f"{node.module}.{one.name}" for one in node.names}
            yield from names & PRINTING
        elif dotted(node) in PRINTING and node not in passed_on | asked:
            yield dotted(node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [one.name for one in node.names] + [getattr(node, "module", "") or ""]
            yield from (one for one in modules if one.partition(".")[0] == "rich")


CLIENT = [path for path in CODE if path.relative_to(ROOT).parts[0] in ("cli", "lns")]


@pytest.mark.parametrize("path", CLIENT, ids=name)
def test_text_reaches_a_terminal_by_one_writer(path: Path) -> None:
    if name(path) not in WRITERS:
        assert list(print_offences(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize("path", CLIENT, ids=name)
def test_bytes_reach_a_terminal_only_where_they_are_a_workloads(path: Path) -> None:
    called = {
        node.id if isinstance(node, ast.Name) else dotted(node)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name | ast.Attribute)
    }

    assert not called & BYTE_WRITING or name(path) in BYTE_WRITERS


@pytest.mark.parametrize(
    "offence",
    [
        "print(name)",
        "import click\nclick.echo(name)",
        "import click\nsay = click.secho",
        "from click import echo",
        "import sys\nsys.stdout.write(name)",
        "import sys\nsys.stderr.buffer.write(name)",
        "import sys\nout = sys.stdout",
        "from sys import stdout",
        "import os\nos.write(1, name)",
        "from rich.console import Console",
        "import rich",
    ],
)
def test_the_rule_of_terminals_finds_what_it_forbids(offence: str) -> None:
    assert list(print_offences(ast.parse(offence))) != []
