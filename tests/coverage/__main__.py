"""Runs the quick tests, also of processes that they start, and holds the result against floors.

Arguments are folders of tests, in place of all that are quick. `--raise` writes down what is
reached now where that is more; floors are never lowered. `--report` measures nothing and takes the
last measurement.
"""

import json
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FLOORS: Final = Path(__file__).parent / "floors.toml"
DATA: Final = ROOT / "build" / "coverage"
_TIERS: Final = ("tests/unit", "tests/contract", "tests/behaviour")
_HEAD: Final = "# Per cent of lines that quick tests run at least; see __main__.py.\n\n[floors]\n"


def package_of(file: str) -> str:
    """Returns the package that a module counts for: `services.vm_runner.life` of one in it."""
    *folders, _ = Path(file).parts
    return ".".join(folders[:3])


def reached(report: dict[str, dict[str, dict[str, dict[str, int]]]]) -> dict[str, float]:
    """Returns the per cent of lines that ran, for each package of a report in JSON."""
    lines: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for file, of_file in report["files"].items():
        count = lines[package_of(file)]
        count[0] += of_file["summary"]["covered_lines"]
        count[1] += of_file["summary"]["num_statements"]
    return {name: 100 * ran / of for name, (ran, of) in sorted(lines.items()) if of}


def below(found: dict[str, float], floors: dict[str, int]) -> list[str]:
    """Returns the packages that are below their floor; one that is gone is none."""
    return [name for name, floor in floors.items() if name in found and found[name] < floor]


def raised(found: dict[str, float], floors: dict[str, int]) -> dict[str, int]:
    """Returns the floors that hold from now on, for the packages that exist."""
    return {name: max(floors.get(name, 0), int(percent)) for name, percent in found.items()}


def main(arguments: list[str]) -> int:
    """Measures, prints a table, and returns 1 where a package is below its floor."""
    if "--report" not in arguments:
        _measure([one for one in arguments if not one.startswith("--")] or _TIERS)
    found = reached(json.loads((DATA / "report.json").read_text()))
    floors: dict[str, int] = tomllib.loads(FLOORS.read_text())["floors"]
    failed = below(found, floors)
    for name, percent in found.items():
        mark = "  BELOW ITS FLOOR" if name in failed else ""
        print(f"{name:44} {percent:5.1f} %  floor {floors.get(name, 0):3} %{mark}")
    if "--raise" in arguments:
        lines = [f'"{name}" = {floor}\n' for name, floor in raised(found, floors).items()]
        FLOORS.write_text(_HEAD + "".join(lines))
    return 1 if failed else 0


def _measure(tests: Sequence[str]) -> None:
    DATA.mkdir(parents=True, exist_ok=True)
    for old in DATA.iterdir():
        old.unlink()
    quick = [*tests, "-m", "not integration and not e2e"]
    coverage = [sys.executable, "-m", "coverage"]
    ran = subprocess.run([*coverage, "run", "-m", "pytest", "-q", *quick], cwd=ROOT, check=False)
    if ran.returncode:
        print("some tests failed: what they would have run is not counted")
    for step in (["combine", "-q"], ["json", "-q", "-o", str(DATA / "report.json")]):
        subprocess.run([*coverage, *step], cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
