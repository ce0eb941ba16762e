"""Traps of libraries that concern no single module."""

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
