"""Tests that could not fail, or would not say what they saw."""

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text())
    for path in sorted((ROOT / "tests").rglob("*.py"))
}
TESTS = [name for name in FILES if Path(name).name.startswith("test_")]

ASSERTING = {"raises", "warns", "fail", "eventually", "run_state_machine_as_test"}
"""Calls that fail a test, of pytest, of this project, of hypothesis."""

WAITING = {"until", "wait_for", "timeout"}
"""Methods that end only when what the test is for has come, or fail."""

SMALLEST = 20
"""Tests that a scan finds in this project at least; fewer, and it looks in the wrong place."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> dict[str, Function]:
    return {node.name: node for node in tree.body if isinstance(node, Function)}


def can_fail(function: Function, asserting: Iterable[str]) -> bool:
    """Whether a function asserts something, itself or by a function that does."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Name) and called.id in asserting:
                return True
            if isinstance(called, ast.Attribute) and called.attr in ASSERTING | WAITING:
                return True
    return False


def asserting_functions(found: Mapping[str, Function], known: set[str]) -> set[str]:
    """Returns the functions that can fail a test, and those known before."""
    asserting = set(known)
    while more := {
        name
        for name, function in found.items()
        if name not in asserting and can_fail(function, asserting)
    }:
        asserting |= more
    return asserting


def shared_functions() -> set[str]:
    """Returns the functions of `support`, `fakes` and `conftest` that can fail a test."""
    found = {
        name: function
        for file, tree in FILES.items()
        if file not in TESTS
        for name, function in functions(tree).items()
    }
    return asserting_functions(found, ASSERTING)


SHARED = shared_functions()


def of_all_tests(faults: Callable[[str], list[str]]) -> list[str]:
    """Returns what is at fault in the files of tests, each by its file."""
    return [f"{file}: {fault}" for file in TESTS for fault in faults(file)]


def test_every_test_can_fail() -> None:
    """`tests.support.outcomes` says so where a subject answers nothing."""

    def faults(file: str) -> list[str]:
        found = functions(FILES[file])
        own = {name: one for name, one in found.items() if not name.startswith("test_")}
        asserting = asserting_functions(own, SHARED)
        return [
            node.name
            for node in ast.walk(FILES[file])
            if isinstance(node, Function)
            and node.name.startswith("test_")
            and not can_fail(node, asserting)
        ]

    assert of_all_tests(faults) == []


def test_a_refusal_is_expected_by_its_kind() -> None:
    """Whatever goes wrong is an LnsError, also what the test is not about."""

    def faults(file: str) -> list[str]:
        return [
            f"line {node.lineno}"
            for node in ast.walk(FILES[file])
            if isinstance(node, ast.Call)
            and ast.unparse(node.func) in ("pytest.raises", "raises")
            and node.args
            and ast.unparse(node.args[0]) in ("LnsError", "errors.LnsError", "Exception")
            and not any(keyword.arg == "match" for keyword in node.keywords)
        ]

    assert of_all_tests(faults) == []


def test_no_test_measures_its_own_table() -> None:
    """How many cases a table has is no promise of what is tested."""

    def faults(file: str) -> list[str]:
        return [
            ast.unparse(node.test)
            for node in ast.walk(FILES[file])
            if isinstance(node, ast.Assert)
            and (measured := re.match(r"len\(([A-Z_]+)\) [<>]", ast.unparse(node.test)))
            and measured[1] in vars_of(FILES[file])
        ]

    assert of_all_tests(faults) == []


def vars_of(tree: ast.Module) -> set[str]:
    """Returns the tables that a module writes down itself, not those of other modules."""
    return {
        ast.unparse(target)
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.value, ast.Dict | ast.List | ast.Tuple | ast.Set)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    }


def test_a_test_that_asserts_nothing_is_found() -> None:
    tree = ast.parse(
        "def check(x): assert x\n"
        "def quiet(x): return x\n"
        "def test_a(): quiet(1)\n"
        "def test_b(): check(1)\n"
        "def test_c():\n    with pytest.raises(ValueError): quiet(1)\n"
    )
    found = functions(tree)
    asserting = asserting_functions({"check": found["check"], "quiet": found["quiet"]}, set())

    assert [name for name in found if not can_fail(found[name], asserting)] == ["quiet", "test_a"]
    assert len(TESTS) > SMALLEST
