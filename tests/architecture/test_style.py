"""What a linter cannot know of this project: names, sizes, and the shape of a service."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted(
    path
    for folder in ("services", "cli", "lns", "protos", "docs")
    for path in (ROOT / folder).rglob("*.py")
    if "gen" not in path.relative_to(ROOT).parts
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))
# A package that holds data files is the way to them.
PACKAGES = [
    path
    for path in CODE
    if path.name == "__init__.py"
    and path != ROOT / "lns" / "client" / "__init__.py"  # the names that programs import
    and not {other.suffix for other in path.parent.iterdir()} & {".json", ".yaml"}
]
SERVICES = sorted(
    path.parent for path in (ROOT / "services").glob("*/__main__.py") if path.parent.name != "suite"
)

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
BANNED_NAMES = re.compile(r"(.*_)?(utils?|manager|common|misc)|helpers?")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", CODE, ids=name)
def test_a_module_can_be_read_in_one_sitting(path: Path) -> None:
    text = path.read_text()
    functions = {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert len(text.splitlines()) <= MAX_MODULE_LINES
    assert [name for name, lines in functions.items() if lines > MAX_FUNCTION_LINES] == []


@pytest.mark.parametrize("path", CODE + TESTS, ids=name)
def test_no_module_is_named_for_having_no_subject(path: Path) -> None:
    parts = path.relative_to(ROOT).with_suffix("").parts

    assert [part for part in parts if BANNED_NAMES.fullmatch(part)] == []


@pytest.mark.parametrize("path", PACKAGES, ids=name)
def test_a_package_says_what_it_is_for_and_does_nothing(path: Path) -> None:
    body = ast.parse(path.read_text()).body

    assert ast.get_docstring(ast.parse(path.read_text()))
    assert len(body) == 1


@pytest.mark.parametrize("path", CODE + TESTS, ids=name)
def test_every_suppression_has_a_reason(path: Path) -> None:
    lines = path.read_text().splitlines()
    mark = re.compile(
        r"#\s*(?:noqa\b:? ?[A-Z0-9, ]*|type: ignore(?:\[[a-z, -]+\])?)(?P<reason>.*)$"
    )

    without = [
        number
        for number, line in enumerate(lines, 1)
        if (match := mark.search(line))
        and not re.search(r"\w{3,}", match["reason"])
        and not lines[number - 2].lstrip().startswith("#")
    ]

    assert without == []


@pytest.mark.parametrize("path", CODE, ids=name)
def test_the_environment_is_read_where_a_process_begins(path: Path) -> None:
    """Everywhere else settings are passed down."""
    readers = {
        "cli/desk/launcher.py",
        "cli/main.py",
        "lns/client/client.py",  # the process is the embedding program's
        "services/chassis/main.py",
        "services/registry_gateway/bootstrap.py",  # callers' environments are held against its own
    }
    found = re.search(r"\bos\.(environ|getenv)\b|\bgetenv\(", path.read_text())

    assert not found or name(path) in readers or path.name == "__main__.py"


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_every_service_has_the_same_parts(service: Path) -> None:
    parts = {"__init__", "__main__", "bootstrap", "settings", "servicer", "messages", "ports"}

    assert {path.stem for path in service.glob("*.py")} >= parts
    assert (service / "adapters" / "__init__.py").exists()


def test_there_are_services_to_look_at() -> None:
    assert SERVICES
    assert len(CODE) > 50
