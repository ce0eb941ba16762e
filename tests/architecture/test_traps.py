"""Traps of libraries that concern no single module."""

import itertools
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_trap_9_a_real_registry_needs_neither_bcrypt_nor_a_second_image() -> None:
    """testcontainers' own registry class imports bcrypt, and its reaper is an image to pull."""
    program = """
import sys
import tests.support.registry
from testcontainers.core.config import testcontainers_config
print(testcontainers_config.ryuk_disabled, "testcontainers.registry" in sys.modules)
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT}/protos/gen"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert result.stdout.split() == ["True", "False"]


def test_no_exception_is_a_dataclass() -> None:
    """Trap 7: a frozen one breaks when a context manager sets its traceback."""
    text = "\n".join(
        path.read_text() for folder in ("services", "cli") for path in (ROOT / folder).rglob("*.py")
    )
    lines = text.splitlines()

    found = [
        line
        for before, line in itertools.pairwise(lines)
        if before.startswith("@dataclass") and line.startswith("class ") and "Error" in line
    ]
    assert found == []
