"""Documents say what is so."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from services.chassis.settings import SECTIONS, ProcessSettings
from services.chassis.settings_tree import load
from services.core.artifacts.yaml_reader import read_yaml

ROOT = Path(__file__).parents[2]


def test_the_generated_tables_are_current() -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert result.returncode == 0, f"{result.stdout}run `python docs/generate.py`\n{result.stderr}"


def process_settings() -> dict[str, type[ProcessSettings]]:
    """Returns the tree of settings of each process, by its section."""
    found = {}
    for path in sorted((ROOT / "services").glob("*/settings.py")):
        module = importlib.import_module(f"services.{path.parent.name}.settings")
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, ProcessSettings)
                and value.__module__ == module.__name__
            ):
                found[path.parent.name] = value
    return found


TREES = process_settings()
EXAMPLES = [
    pytest.param(match[1], id=f"{path.name}-{number}")
    for path in sorted((ROOT / "docs").glob("*.md"))
    for number, match in enumerate(
        re.finditer(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL), 1
    )
    if path.name == "configuration.md"
]
FILES = sorted((ROOT / "deploy").rglob("config/*.yaml"))


def check_settings(text: str, folder: Path) -> None:
    """Loads the text as the settings of every process that it has a section for."""
    file = folder / "settings.yaml"
    file.write_text(text)
    document = read_yaml(text, max_depth=16, max_nodes=10_000)
    assert isinstance(document, dict)
    sections = document.keys() & TREES.keys() or {"resolver"} & TREES.keys()
    assert sections
    for section in sections:
        own = set(TREES[section].__dataclass_fields__)
        load(TREES[section], file=file, environment={"HOME": "/root"}, foreign=SECTIONS - own)


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_of_the_documents_loads(text: str, tmp_path: Path) -> None:
    check_settings(text, tmp_path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_settings_file_of_the_deployment_loads(path: Path, tmp_path: Path) -> None:
    check_settings(path.read_text(), tmp_path)


def test_there_are_examples_to_look_at() -> None:
    assert EXAMPLES
    assert TREES


@pytest.mark.parametrize("path", sorted(ROOT.glob("**/[A-Za-z]*.md")), ids=lambda path: path.name)
def test_links_of_documents_lead_somewhere(path: Path) -> None:
    if ".venv" in path.parts or ".cache" in path.parts:
        return
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())

    missing = [
        target for target in targets if "://" not in target and not (path.parent / target).exists()
    ]
    assert missing == []
