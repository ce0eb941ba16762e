"""The import rules of `pyproject.toml` hold, and would notice if they did not."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("lint-imports")


def lint_imports(root: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the packages and the contracts below `root`."""
    return subprocess.run(
        [PROGRAM, "--config", ROOT / "pyproject.toml", "--no-cache"],
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'protos' / 'gen'}"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_import_breaks_a_contract() -> None:
    result = lint_imports(ROOT)

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        ("services/core/digest.py", "import structlog", "the core is pure"),
        ("services/core/digest.py", "import services.chassis.server", "the directions of imports"),
        (
            "services/chassis/server.py",
            "import services.resolver.ports",
            "the directions of imports",
        ),
        (
            "services/resolver/ports.py",
            "import services.materializer.ports",
            "the directions of imports",
        ),
        ("services/resolver/ports.py", "import grpc", "gRPC stays at the edges"),
        ("services/resolver/ports.py", "import lns.vm.v1", "gRPC stays at the edges"),
        ("services/materializer/ports.py", "import oras", "oras is fenced"),
        ("services/vm_runner/ports.py", "import subprocess", "programs are started by adapters"),
        (
            "services/vm_runner/channel/wire.py",
            "import services.vm_runner.life.boot",
            "the rooms of vm_runner",
        ),
        (
            "services/vm_runner/file_server/session.py",
            "import services.vm_runner.records",
            "a helper process knows neither",
        ),
        ("services/vm_runner/channel/wire.py", "import grpc", "a helper process knows neither"),
        ("cli/main.py", "import services.resolver.ports", "know services by their protos"),
    ],
)
def test_a_forbidden_import_is_noticed(
    module: str, statement: str, contract: str, tmp_path: Path
) -> None:
    empty_copy(tmp_path)
    (tmp_path / module).write_text(f"{statement}\n")

    assert contract in broken_contracts(tmp_path)


def test_a_use_case_that_knows_an_adapter_is_noticed(tmp_path: Path) -> None:
    """Which modules are use cases is not listed anywhere: it is what the servicer imports."""
    empty_copy(tmp_path)
    service = tmp_path / "services" / "registry_gateway"
    (service / "servicer.py").write_text("import services.registry_gateway.pull\n")
    (service / "pull.py").write_text("import services.registry_gateway.adapters\n")

    assert "put together in its bootstrap" in broken_contracts(tmp_path)


def empty_copy(root: Path) -> None:
    """Makes the tree of packages below `root`, with empty modules."""
    for package in ("services", "cli", "lns", "protos/gen/lns"):
        for source in sorted((ROOT / package).rglob("*.py")):
            target = root / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()


def broken_contracts(root: Path) -> str:
    """Returns the lines of the contracts that the packages below `root` break."""
    result = lint_imports(root)
    assert result.returncode != 0
    return "\n".join(line for line in result.stdout.splitlines() if line.endswith("BROKEN"))
