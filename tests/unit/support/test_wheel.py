"""The tag of the wheel: of the machine whose programs are in it."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def tag_of(root: Path) -> str:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.wheel_tag(root))


def build(root: Path, *names: str) -> None:
    for name in names:
        part = "confine" if "confine" in name else "guest"
        path = root / "services" / "vm_runner" / part / "build" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_wheel_with_programs_is_for_their_machine(tmp_path: Path) -> None:
    build(tmp_path, "lns-agent-aarch64", "lns-confine-aarch64", "lns-agent-aarch64.d")

    assert tag_of(tmp_path) == "py3-none-linux_aarch64"


def test_a_wheel_carries_the_agents_of_guests_of_both_architectures(tmp_path: Path) -> None:
    build(tmp_path, "lns-confine-x86_64", "lns-agent-x86_64", "lns-agent-aarch64")

    assert tag_of(tmp_path) == "py3-none-linux_x86_64"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    carried = project["tool"]["hatch"]["build"]["artifacts"]
    assert "services/vm_runner/guest/build/lns-agent-*" in carried


def test_a_wheel_without_programs_is_for_any(tmp_path: Path) -> None:
    assert tag_of(tmp_path) == "py3-none-any"


def test_a_wheel_is_for_one_machine(tmp_path: Path) -> None:
    build(tmp_path, "lns-confine-aarch64", "lns-confine-x86_64")

    with pytest.raises(ValueError, match="aarch64, x86_64"):
        tag_of(tmp_path)


def test_the_build_uses_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())

    assert "custom" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
