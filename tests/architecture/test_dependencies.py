"""Dependencies are pinned, explained, and taken from no particular index."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME = [Requirement(text) for text in PROJECT["dependencies"]]
DEVELOPMENT = [Requirement(text) for text in PROJECT["optional-dependencies"]["dev"]]
GROUPS = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
GUEST = [Requirement(text) for text in GROUPS["guest"]]
DOCUMENT = (ROOT / "docs" / "dependencies.md").read_text()


def pins(name: str) -> dict[str, str]:
    """Versions by package name, as a lock file pins them."""
    lines = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE)
    return {canonicalize_name(package): version for package, version in lines}


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("requirements.lock", RUNTIME),
        ("requirements-dev.lock", RUNTIME + DEVELOPMENT),
        ("requirements-guest.lock", GUEST),
    ],
)
def test_every_dependency_is_pinned_within_its_bounds(
    lock: str, requirements: list[Requirement]
) -> None:
    pinned = pins(lock)

    for requirement in requirements:
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in {lock}: run make lock"
        assert requirement.specifier.contains(version, prereleases=True), requirement


def test_the_two_locks_agree() -> None:
    assert pins("requirements.lock").items() <= pins("requirements-dev.lock").items()


@pytest.mark.parametrize(
    "lock", ["requirements.lock", "requirements-dev.lock", "requirements-guest.lock"]
)
def test_every_pin_has_hashes_and_no_index_is_named(lock: str) -> None:
    text = (ROOT / lock).read_text()
    blocks = re.split(r"^(?=[A-Za-z0-9._-]+==)", text, flags=re.MULTILINE)[1:]

    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text


def is_explained(package: str) -> bool:
    """Whether a table's first column names the package; the stub packages share a line."""
    cells = [line.split("|")[1] for line in DOCUMENT.splitlines() if line.startswith("|")]
    name = "types-…" if package.startswith("types-") else package
    return any(name in re.split(r"[\s,`/]+", cell) for cell in cells)


@pytest.mark.parametrize("requirement", RUNTIME + DEVELOPMENT, ids=str)
def test_every_dependency_is_explained(requirement: Requirement) -> None:
    assert is_explained(requirement.name)


def test_every_debian_package_is_explained() -> None:
    script = (ROOT / "scripts" / "setup" / "apt").read_text()
    groups = re.findall(r'^    \[\w+\]="([^"]*)"$', script, re.MULTILINE)
    packages = {package for group in groups for package in group.split()} - {"$qemu", "$foreign"}

    assert packages
    assert {package for package in packages if not is_explained(package)} == set()
