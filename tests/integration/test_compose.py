"""Compose itself accepts the files of `deploy/`."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.prerequisites import Prerequisite, missing

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize(
    "files",
    [
        ["compose.yaml"],
        ["compose.yaml", "compose.kvm.yaml"],
        ["compose.yaml", "compose.tls.yaml"],
        ["compose.yaml", "compose.kvm.yaml", "compose.tls.yaml"],
    ],
)
def test_docker_compose_accepts(files: list[str]) -> None:
    program = shutil.which("docker-compose")
    if program is None:
        missing(Prerequisite.REGISTRY, "docker-compose is not installed")
    options = [option for file in files for option in ("-f", DEPLOY / file)]

    result = subprocess.run(
        [program, *options, "config"],
        env={"PATH": os.environ["PATH"], "LNS_CERTIFICATES": "/certificates"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    assert "registry_gateway:" in result.stdout
