"""The client in the test's own process, against services that answer as scripted."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.app import dispatch
from tests.support.scripted_services import ScriptedServices, scripted_services


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


Client = Callable[..., Result]


@pytest.fixture(autouse=True)
def own_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Has commands begin in an empty directory: `lns run` makes its policy file where it begins."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def services(short_directory: Path) -> Iterator[ScriptedServices]:
    with scripted_services(short_directory) as scripted:
        yield scripted


@pytest.fixture
def lns(services: ScriptedServices, capfd: pytest.CaptureFixture[str]) -> Client:
    """Runs a command and returns its result."""

    def run(*arguments: str, **variables: str) -> Result:
        capfd.readouterr()
        code = dispatch(arguments, {**services.environment, **variables})
        captured = capfd.readouterr()
        return Result(code=code, out=captured.out, err=captured.err)

    return run
