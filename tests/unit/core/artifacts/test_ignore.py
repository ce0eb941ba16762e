"""`.lnsignore` against git itself."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.core.artifacts.ignore import IgnoreRules
from services.core.errors import RequestInvalid

FILES = [
    "a", "b.pyc", "dir/a", "dir/b.pyc", "dir/sub/a", "dir/sub/b.pyc", "other/dir/a", "x y", "[a]",
    "build/out", "build/keep", "node_modules/m/i.js", "z/node_modules/j.js", "-", "a-b", "#c", "!d",
]  # fmt: skip

PATTERNS = [
    "a", "*.pyc", "/a", "dir", "dir/", "/dir", "dir/a", "/dir/*", "dir/**", "**/a", "**/dir/a",
    "dir/**/a", "dir/*/a", "*", "**", "/*", "*/", "build/*", "!build/keep", "!*", "!a", "!dir/",
    "node_modules", "node_modules/", "?", "[ab]", "[!a]", "[a-b].pyc", "b.[^p]yc", "x y", "x\\ y",
    "\\#c", "\\!d", "\\[a\\]", "[[:alpha:]]", "[]-]", "[]a]", "a*b", "#comment", "", "   ", "a   ",
    "sub", "*/sub", "[a", "d?r", "d*r", "**dir", "dir**", "a\\", "/", "//", "!",
]  # fmt: skip


def ignored_by_us(text: str) -> set[str]:
    """Walks as the packer does: what is below an ignored directory is not looked at."""
    rules = IgnoreRules.parse(text)
    found = set()
    for file in FILES:
        parents = [str(one) for one in reversed(Path(file).parents)][1:]
        if any(rules.ignores(one, is_directory=True) for one in parents) or rules.ignores(
            file, is_directory=False
        ):
            found.add(file)
    return found


def ignored_by_git(directory: Path, text: str) -> set[str]:
    (directory / ".gitignore").write_text(text)
    listed = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin", "-z"],
        cwd=directory,
        input="\0".join(FILES).encode(),
        capture_output=True,
        env={"PATH": os.environ["PATH"], "HOME": str(directory), "GIT_CONFIG_NOSYSTEM": "1"},
        check=False,
    )
    assert listed.returncode in (0, 1), listed.stderr
    return {name for name in listed.stdout.decode().split("\0") if name}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("git") is None:
        pytest.fail("git is needed: it is what .lnsignore is held against")
    directory = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q"], cwd=directory, check=True)
    for file in FILES:
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        (directory / file).touch()
    return directory


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_ignores_what_git_ignores(repository: Path, pattern: str) -> None:
    assert ignored_by_us(pattern) == ignored_by_git(repository, pattern)


def test_combinations_ignore_what_git_ignores(repository: Path) -> None:
    @given(st.lists(st.sampled_from(PATTERNS), min_size=2, max_size=4))
    @settings(max_examples=150, deadline=None)
    def check(patterns: list[str]) -> None:
        text = "\n".join(patterns) + "\n"
        assert ignored_by_us(text) == ignored_by_git(repository, text)

    check()


def test_the_file_itself_is_never_packed() -> None:
    assert IgnoreRules.parse("!.lnsignore").ignores(".lnsignore", is_directory=False)


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_text_is_a_set_of_rules_or_refused(text: str, path: str) -> None:
    try:
        rules = IgnoreRules.parse(text)
    except RequestInvalid:
        return
    assert isinstance(rules.ignores(path, is_directory=False), bool)
