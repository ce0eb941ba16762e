"""Packages are the same bytes wherever and whenever they are built, and have what users need."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from services.core.version import VERSION

ROOT = Path(__file__).parents[3]


def build(place: Path, *, umask: int) -> dict[str, bytes]:
    """Builds both packages from a copy of what is tracked; returns them by name."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.split("\0")
    before = os.umask(umask)
    try:
        for name in filter(None, tracked):
            # Tests are in the source archive too, and copying those here proves nothing more.
            if not name.startswith("tests/") and (ROOT / name).exists():
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, place / name)
        run_build(place, "sdist")
        for folder, program in (("guest", "lns-agent-x86_64"), ("confine", "lns-confine-x86_64")):
            path = place / "services" / "vm_runner" / folder / "build" / program
            path.parent.mkdir(parents=True)
            path.write_bytes(b"\x7fELF")
            path.chmod(0o755 & ~umask)
        run_build(place, "wheel")
    finally:
        os.umask(before)
    return {path.name: path.read_bytes() for path in (place / "dist").iterdir()}


def run_build(place: Path, target: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", "dist"],
        cwd=place,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1764547200"},
        capture_output=True,
        check=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Path]:
    place = tmp_path_factory.mktemp("first")
    return build(place, umask=0o022), place / "dist"


def test_two_builds_are_the_same_bytes(
    built: tuple[dict[str, bytes], Path], tmp_path: Path
) -> None:
    again = build(tmp_path / "elsewhere", umask=0o077)

    assert sorted(again) == [f"lns-{VERSION}-py3-none-linux_x86_64.whl", f"lns-{VERSION}.tar.gz"]
    assert again == built[0]


def test_the_wheel_has_programs_pages_and_types_and_no_tests(
    built: tuple[dict[str, bytes], Path],
) -> None:
    with zipfile.ZipFile(next(built[1].glob("*.whl"))) as wheel:
        modes = {one.filename: one.external_attr >> 16 & 0o777 for one in wheel.infolist()}
    data = f"lns-{VERSION}.data/data/share"

    assert modes["services/vm_runner/guest/build/lns-agent-x86_64"] & 0o111
    assert modes["services/vm_runner/confine/build/lns-confine-x86_64"] & 0o111
    assert f"{data}/man/man1/lns-run.1" in modes
    assert f"{data}/bash-completion/completions/lns" in modes
    assert "lns/client/py.typed" in modes
    assert "lns/vm/v1/vm_service_pb2.py" in modes
    assert [name for name in modes if name.startswith(("tests/", "docs/", "scripts/"))] == []


def test_the_source_archive_has_no_built_programs(
    built: tuple[dict[str, bytes], Path],
) -> None:
    with tarfile.open(next(built[1].glob("*.tar.gz"))) as archive:
        names = archive.getnames()

    assert f"lns-{VERSION}/services/vm_runner/guest/main.c" in names
    assert [name for name in names if "/build/" in name] == []
