"""What every end-to-end test may ask for: a user of lns, a real registry, a machine that boots."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lns_command import ROOT, Lns, lns_user
from tests.support.prerequisites import Prerequisite, missing
from tests.support.registry import RunningRegistry
from tests.support.registry_fixtures import registry

__all__ = ["registry"]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lns"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder is an end-to-end test, and may boot machines under emulation."""
    for item in items:
        if "tests/e2e/" in item.nodeid:
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def image_layout() -> Path:
    """The demo's image as an OCI layout: Debian with python3, in two layers."""
    if shutil.which("qemu-system-x86_64") is None and shutil.which("qemu-system-aarch64") is None:
        missing(Prerequisite.QEMU, "there is no QEMU; scripts/setup/apt installs it")
    if not any((CACHE / "kernel").glob("*")):
        missing(Prerequisite.QEMU, "there is no guest kernel; scripts/setup/kernel gets one")
    if not any((ROOT / "services" / "vm_runner" / "guest" / "build").glob("lns-agent-*")):
        missing(Prerequisite.QEMU, "there is no guest agent; `make guest-agent` builds it")
    layout = CACHE / "rootfs" / "current" / "oci"
    if not layout.exists():
        missing(Prerequisite.QEMU, "there is no root file system; scripts/setup/rootfs makes it")
    return layout


@pytest.fixture(scope="session")
def programs_layout(image_layout: Path) -> Path:
    """The demo's image with git, curl, wget, ssh, apt, pip, Node, npm and Java, in three layers."""
    layout = CACHE / "programs" / "current" / "oci"
    if not layout.exists():
        missing(Prerequisite.QEMU, "there are no programs; scripts/setup/programs makes the image")
    return layout


@pytest.fixture(scope="session")
def lns() -> Iterator[Lns]:
    """One user for the whole session; runs and references keep tests apart."""
    directory = Path(tempfile.mkdtemp(prefix="lns", dir="/tmp"))
    try:
        with lns_user(directory) as user:
            yield user
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def other(short_directory: Path) -> Iterator[Lns]:
    """A user of a test's own, with services of their own."""
    with lns_user(short_directory) as user:
        yield user


@pytest.fixture(scope="session")
def image(lns: Lns, registry: RunningRegistry, image_layout: Path) -> str:
    """The demo's image in the registry."""
    reference = f"{registry.new_repository('images/debian')}:1"
    lns.ok("push", f"oci:{image_layout}", reference)
    return reference
