"""Which kernel the boot files of an architecture are made of, and what is said without one."""

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.chassis.blocking import Blocking
from services.core.errors import HostUnready
from services.vm_runner.adapters.boot_files.cache import GuestFileCache, default_agent
from services.vm_runner.architectures import Architecture

X86_64, AARCH64 = Architecture.X86_64, Architecture.AARCH64


def vmlinux(machine: int) -> bytes:
    """An ELF file of a machine, as elf(5) numbers them."""
    return b"\x7fELF" + bytes(14) + struct.pack("<H", machine) + bytes(1000)


KERNELS = {X86_64: vmlinux(62), AARCH64: vmlinux(183)}


@pytest.fixture
def blocking() -> Iterator[Blocking]:
    with Blocking(1) as blocking:
        yield blocking


class Place:
    """Folders for kernels, agents and boot files."""

    def __init__(self, folder: Path, blocking: Blocking) -> None:
        self.kernels = folder / "kernels"
        self.folder = folder
        self._blocking = blocking
        for architecture in Architecture:
            agent = default_agent(folder, architecture)
            agent.parent.mkdir(parents=True, exist_ok=True)
            agent.write_bytes(f"agent for {architecture}".encode())

    def kernel(self, release: str, image: bytes) -> Path:
        """Puts a kernel that has everything built in."""
        root = self.kernels / release
        (root / "boot").mkdir(parents=True)
        (root / "boot" / f"vmlinuz-{release}").write_bytes(image)
        (root / "lib" / "modules" / release).mkdir(parents=True)
        return root

    def cache(self, architecture: Architecture, kernel: Path | None = None) -> GuestFileCache:
        return GuestFileCache(
            directory=self.folder / "guest",
            architecture=architecture,
            kernels=self.kernels,
            kernel=kernel,
            agent=default_agent(self.folder, architecture),
            blocking=self._blocking,
        )


@pytest.fixture
def place(tmp_path: Path, blocking: Blocking) -> Place:
    return Place(tmp_path, blocking)


@pytest.mark.parametrize("architecture", list(Architecture))
async def test_of_kernels_side_by_side_the_newest_of_the_architecture_is_taken(
    place: Place, architecture: Architecture
) -> None:
    (other,) = architecture.others
    place.kernel("6.12.8-own", KERNELS[architecture])
    place.kernel("6.12.9-own", KERNELS[architecture])
    place.kernel("6.12.10-other", KERNELS[other])

    files = await place.cache(architecture).prepare()

    assert files.release == "6.12.9-own"
    assert files.vmlinux.read_bytes() == KERNELS[architecture]
    assert f"agent for {architecture}".encode() in files.initramfs.read_bytes()


async def test_without_a_kernel_of_the_architecture_the_command_that_gets_one_is_said(
    place: Place,
) -> None:
    place.kernel("6.12.9", KERNELS[X86_64])

    with pytest.raises(HostUnready, match="no guest kernel for aarch64 was found in") as caught:
        await place.cache(AARCH64).prepare()

    assert "lns setup" in caught.value.hint
    assert caught.value.metadata["architecture"] == "aarch64"


@pytest.mark.parametrize("as_file", [True, False])
async def test_a_kernel_that_was_named_and_is_of_another_architecture_is_refused(
    place: Place, as_file: bool
) -> None:
    root = place.kernel("6.12.9", KERNELS[AARCH64])
    named = root / "boot" / "vmlinuz-6.12.9" if as_file else root

    with pytest.raises(HostUnready, match="a kernel for") as caught:
        await place.cache(X86_64, named).prepare()

    assert "vmlinuz-6.12.9" in caught.value.message


async def test_an_agent_that_is_missing_is_named(place: Place) -> None:
    place.kernel("6.12.9", KERNELS[AARCH64])
    default_agent(place.folder, AARCH64).unlink()

    with pytest.raises(HostUnready, match="lns-agent-aarch64 does not exist") as caught:
        await place.cache(AARCH64).prepare()

    assert caught.value.hint


async def test_a_kernel_that_is_compressed_as_a_whole_is_one_for_arm(place: Place) -> None:
    place.kernel("6.12.9", gzip.compress(b"MZ" + bytes(0x36) + b"ARMd" + bytes(100)))

    assert (await place.cache(AARCH64).prepare()).release == "6.12.9"
