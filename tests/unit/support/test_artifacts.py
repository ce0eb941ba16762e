"""Failed tests leave the logs of what they used."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

FAILING = """
import pytest
from pathlib import Path
from types import SimpleNamespace

@pytest.fixture
def user():
    return SimpleNamespace(home=Path(__file__).parent / "state")

@pytest.mark.parametrize("good", [True, False])
def test_it(user, good):
    assert good
"""


def test_only_failed_tests_leave_logs(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = pytester.path / "state"
    for name in ("logs/suite.log", "runs/r1/qemu.log", "runs/r1/logs/1.log", "runs/r1/disk.img"):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text(name)
    monkeypatch.setenv("LNS_TEST_ARTIFACTS", str(pytester.path / "kept"))
    root = Path(__file__).parents[3]
    pytester.makeconftest("from tests.conftest import pytest_runtest_makereport")
    pytester.makepyfile(FAILING)
    pytester.syspathinsert(root)

    result = pytester.runpytest_inprocess("-p", "no:asyncio", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=1, failed=1)
    kept = sorted(
        str(path.relative_to(pytester.path / "kept"))
        for path in (pytester.path / "kept").rglob("*")
        if path.is_file()
    )
    folder = "test_only_failed_tests_leave_logs.py_test_it_False_"
    assert kept == [
        f"{folder}/0/logs/suite.log",
        f"{folder}/0/runs/r1/logs/1.log",
        f"{folder}/0/runs/r1/qemu.log",
    ]
