"""Kernel and initial file system of guests, made once for each kernel and agent.

`guest/<key>/vmlinux` and `guest/<key>/initramfs`, where the key is a digest over what they are made
of. A directory appears whole (renamed into place); others than the current one are left for the
runs that boot from them and removed when nothing has used them for a month.
"""

import asyncio
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from services.chassis import durable
from services.chassis.blocking import Blocking
from services.chassis.guest_kernels import kernel_folders
from services.core.errors import HostUnready
from services.vm_runner.adapters.boot_files.host_roots import read_host_roots
from services.vm_runner.adapters.boot_files.initramfs import build_initramfs
from services.vm_runner.adapters.boot_files.kernel import (
    decompress_module,
    no_kernel,
    order_modules,
)
from services.vm_runner.adapters.boot_files.kernel_image import (
    HEAD_BYTES,
    extract_kernel,
    kernel_architecture,
)
from services.vm_runner.adapters.provisions import kernel_remedy, program_remedy
from services.vm_runner.architectures import Architecture
from services.vm_runner.machines import BootFiles

_FORMAT = "1"
_MODULES = ("virtio_blk", "erofs", "overlay")
_KERNEL_MAX = 256 << 20
_OTHER_KERNEL = "name another kernel with vm_runner.kernel"


class GuestFileCache:
    """Boot files below one directory of the state directory.

    Args:
        directory: where they are kept.
        architecture: of the guests.
        kernels: folder with a folder for each kernel, as `guest_kernels` says.
        kernel: a folder or kernel file to use instead of the chosen or newest one.
        agent: the guest agent's binary.
        blocking: where files are read and written.
    """

    def __init__(
        self,
        *,
        directory: Path,
        architecture: Architecture,
        kernels: Path,
        kernel: Path | None,
        agent: Path,
        blocking: Blocking,
    ) -> None:
        self._directory = directory
        self._architecture = architecture
        self._kernels = kernels
        self._kernel = kernel
        self._agent = agent
        self._blocking = blocking
        self._files: BootFiles | None = None
        self._lock = asyncio.Lock()

    async def prepare(self) -> BootFiles:
        """Returns the boot files, made if they are not there."""
        async with self._lock:
            if self._files is None or not self._files.vmlinux.exists():
                self._files = await self._blocking.run(self._prepare)
            return self._files

    # ---- in a thread ----

    def _prepare(self) -> BootFiles:
        image, release = self._find_kernel()
        agent = self._read_agent()
        key = hashlib.sha256()
        for part in (_FORMAT, str(image), str(image.stat().st_size), str(image.stat().st_mtime_ns)):
            key.update(part.encode() + b"\0")
        key.update(agent)
        roots = read_host_roots()
        key.update(hashlib.sha256(roots).digest())
        place = self._directory / f"{release}-{key.hexdigest()[:16]}"
        if not (place / "initramfs").exists():
            self._make(place, image, release, agent, roots)
        return BootFiles(vmlinux=place / "vmlinux", initramfs=place / "initramfs", release=release)

    def _make(self, place: Path, image: Path, release: str, agent: bytes, roots: bytes) -> None:
        vmlinux = extract_kernel(_read(image), self._architecture, name=str(image))
        modules = order_modules(_MODULES, _ModuleFolder(_module_folder(image, release)).load)
        initramfs = build_initramfs(agent=agent, modules=modules, roots=roots)
        temporary = self._directory / f"{durable.TEMPORARY_PREFIX}{secrets.token_hex(8)}"
        temporary.mkdir(mode=0o755, parents=True)
        try:
            durable.write_bytes(temporary / "vmlinux", vmlinux)
            durable.write_bytes(temporary / "initramfs", initramfs)
            durable.rename(temporary, place)
        except OSError:
            if not place.exists():  # else another process was first
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _find_kernel(self) -> tuple[Path, str]:
        if self._kernel is not None and self._kernel.is_file():
            return self._kernel, self._kernel.name.removeprefix("vmlinuz-")
        own = self._kernel
        folders = [own] if own is not None else kernel_folders(self._kernels)
        found = [image for folder in folders for image in folder.glob("boot/vmlinuz-*")]
        of = {image: _architecture(image) for image in found}
        images = [image for image in found if of[image] is self._architecture] or [
            image for image in found if of[image] is None
        ]
        if not images and found and self._kernel is not None:
            raise no_kernel(str(found[0]), f"it is not a kernel for {self._architecture}")
        if not images:
            where = self._kernel or self._kernels
            raise HostUnready(
                f"no guest kernel for {self._architecture} was found in {where}",
                hint=kernel_remedy(self._architecture),
                metadata={"kernel": str(where), "architecture": self._architecture},
            )
        newest = max(images, key=lambda path: _version(path.name))
        return newest, newest.name.removeprefix("vmlinuz-")

    def _read_agent(self) -> bytes:
        try:
            return self._agent.read_bytes()
        except FileNotFoundError:
            raise HostUnready(
                f"the guest agent {self._agent} does not exist",
                hint=program_remedy("guest", self._architecture),
                metadata={"agent": str(self._agent)},
            ) from None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > _KERNEL_MAX:
            raise HostUnready(f"{path} is too large for a kernel", hint=_OTHER_KERNEL)
        return file.read()


def _architecture(image: Path) -> Architecture | None:
    try:
        with image.open("rb") as file:
            return kernel_architecture(file.read(HEAD_BYTES))
    except OSError:  # as if it were not there
        return None


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", name))


def _module_folder(image: Path, release: str) -> Path:
    """Returns where the modules of a kernel are: beside `boot` as the package has them."""
    root = image.parent.parent
    for candidate in (root / "usr/lib/modules" / release, root / "lib/modules" / release):
        if candidate.is_dir():
            return candidate
    raise HostUnready(f"no modules exist for the kernel {image}", hint=_OTHER_KERNEL)


class _ModuleFolder:
    """The modules of a kernel by their names, in which `-` and `_` are the same."""

    def __init__(self, folder: Path) -> None:
        self._paths = dict(self._find(folder))

    @staticmethod
    def _find(folder: Path) -> Iterator[tuple[str, Path]]:
        for directory, _, names in os.walk(folder / "kernel"):
            for name in names:
                if match := re.fullmatch(r"(.+)\.ko(\.(xz|zst|gz))?", name):
                    yield match[1].replace("-", "_"), Path(directory) / name

    def load(self, name: str) -> bytes | None:
        path = self._paths.get(name)
        return None if path is None else decompress_module(path.read_bytes(), name=name)


def default_agent(package: Path, architecture: Architecture) -> Path:
    """Returns where the agent for guests of an architecture is built."""
    return package / "guest" / "build" / f"lns-agent-{architecture}"
