"""The committed code is what the protos give, and fits the runtime that the project asks for."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "protos" / "gen"


def test_the_generated_code_is_fresh() -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "protos" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert result.returncode == 0, result.stdout + result.stderr


def lowest(package: str) -> Version:
    """Returns the lowest version of a run-time dependency that the project permits."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (requirement,) = [r for r in map(Requirement, project["dependencies"]) if r.name == package]
    (bound,) = [s for s in requirement.specifier if s.operator == ">="]
    return Version(bound.version)


@pytest.mark.parametrize(
    ("package", "files", "pattern"),
    [
        ("protobuf", "*_pb2.py", r"# Protobuf Python Version: (\S+)"),
        ("grpcio", "*_pb2_grpc.py", r"GRPC_GENERATED_VERSION = '(\S+)'"),
    ],
)
def test_trap_11_generated_code_refuses_an_older_runtime_so_that_is_not_permitted(
    package: str, files: str, pattern: str
) -> None:
    """Generated code checks at import; a permitted older version would fail at a user's."""
    generators = {
        Version(match[1])
        for path in GENERATED.rglob(files)
        if (match := re.search(pattern, path.read_text()))
    }

    (generator,) = generators
    assert lowest(package) >= generator


def test_every_proto_has_its_code_and_only_services_have_stubs() -> None:
    protos = {
        path.relative_to(ROOT / "protos").with_suffix("")
        for path in (ROOT / "protos/lns").rglob("*.proto")
    }

    def made(suffix: str) -> set[Path]:
        return {
            path.relative_to(GENERATED).with_name(path.name.removesuffix(suffix))
            for path in GENERATED.rglob(f"*{suffix}")
        }

    assert made("_pb2.py") == made("_pb2.pyi") == protos
    services = {path for path in protos if path.name.endswith("_service")}
    assert made("_pb2_grpc.py") == made("_pb2_grpc.pyi") == services
