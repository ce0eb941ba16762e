"""What every maker of disks promises: ext4 images, and the fake that other tests stand on."""

from pathlib import Path

import pytest

from services.vm_runner.adapters.disk_images import Ext4Images
from services.vm_runner.ports import DiskMaker
from tests.fakes.vm_outside import FakeDisks

MIB = 1 << 20


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture(params=[FakeDisks, Ext4Images])
def disks(request: pytest.FixtureRequest) -> DiskMaker:
    maker: DiskMaker = request.param()
    return maker


async def test_a_disk_is_made_and_nothing_beside_it(disks: DiskMaker, tmp_path: Path) -> None:
    await disks.ensure(tmp_path / "disk", size_bytes=64 * MIB)

    assert names(tmp_path) == ["disk"]
    assert (tmp_path / "disk").stat().st_blocks * 512 < 64 * MIB, "it is sparse"


async def test_a_disk_that_exists_stays_as_it_is(disks: DiskMaker, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    await disks.ensure(disk, size_bytes=64 * MIB)
    before = (disk.read_bytes(), disk.stat().st_ino, disk.stat().st_mtime_ns)

    await disks.ensure(disk, size_bytes=128 * MIB)

    assert (disk.read_bytes(), disk.stat().st_ino, disk.stat().st_mtime_ns) == before


async def test_two_disks_are_two(disks: DiskMaker, tmp_path: Path) -> None:
    for name in ("one", "two"):
        await disks.ensure(tmp_path / name, size_bytes=64 * MIB)

    assert names(tmp_path) == ["one", "two"]
