"""vm_runner and a materializer with real microVMs, and a small image of busybox to run in them."""

import contextlib
import io
import os
import platform
import shutil
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

from lns.materializer.v1 import materializer_service_pb2 as images_pb
from lns.vm.v1 import vm_service_pb2, vm_service_pb2_grpc

from services.chassis.channel import open_channel
from services.chassis.guest_kernels import FOREIGN, kernel_cache
from services.chassis.server import running_server
from services.chassis.settings import PeerSettings, ServerSettings
from services.core.artifacts.families import family_by_slug
from services.vm_runner.adapters.boot_files.cache import default_agent
from services.vm_runner.architectures import Architecture
from services.vm_runner.bootstrap import open_vm_runner
from services.vm_runner.settings import VmSettings
from services.vm_runner.vmm_options import AcceleratorMode
from tests.support.guest_agent import ROOT, require_agent
from tests.support.materializer import Client, served
from tests.support.prerequisites import Prerequisite, missing
from tests.support.vm_service import VmClient

APPLETS = (  # noqa: SIM905  # a list of words is read as one
    "[ awk cat chmod chown chroot cp cut dd df env false find free grep head hostname httpd id "
    "kill ln ls mkdir mknod mount mv nc nproc nslookup ping ps pwd readlink rm rmdir sed seq sh "
    "sha256sum sleep "
    "sort stat stty sync tail test timeout touch tr true tty umount uname uniq wc wget yes"
).split()


BIG = bytes(range(256)) * 8192
"""A file of the image that is longer than what is kept inline: 2 MiB."""

PROTECTED = "/etc/agent/data"
FILES_OF_ARTIFACT = {"a.txt": b"artifact a\n", "sub/b.txt": b"B" * 100_000}


def require_microvms() -> Path:
    """Return busybox, a program that needs nothing, or end the test."""
    require_agent()
    if shutil.which(f"qemu-system-{platform.machine()}") is None:
        missing(Prerequisite.QEMU, "there is no QEMU; scripts/setup/apt installs it")
    if not any(kernel_cache(os.environ).glob("*/boot/vmlinuz-*")):
        missing(Prerequisite.QEMU, "there is no guest kernel; scripts/setup/kernel gets one")
    busybox = shutil.which("busybox")
    if busybox is None:
        missing(Prerequisite.QEMU, "there is no busybox; scripts/setup/apt installs it")
    return Path(busybox)


def require_foreign() -> Architecture:
    """Return the architecture that this machine emulates, or end the test."""
    require_microvms()
    (foreign,) = Architecture(platform.machine()).others
    agent = default_agent(ROOT / "services" / "vm_runner", foreign)
    kernels = kernel_cache(os.environ) / FOREIGN
    if (
        shutil.which(f"qemu-system-{foreign}") is None
        or not agent.exists()
        or not any(kernels.glob("*/boot/vmlinuz-*"))
    ):
        missing(Prerequisite.QEMU, f"{foreign} is not emulated; scripts/setup/foreign installs it")
    return foreign


class Tree:
    """An uncompressed layer, entry by entry."""

    def __init__(self) -> None:
        self._data = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._data, mode="w")

    def directory(self, name: str, mode: int = 0o755) -> None:
        self._add(name, tarfile.DIRTYPE, mode)

    def file(self, name: str, data: bytes, mode: int = 0o644, **more: int) -> None:
        self._add(name, tarfile.REGTYPE, mode, data=data, **more)

    def link(self, name: str, target: str) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._tar.addfile(info)

    def _add(self, name: str, kind: bytes, mode: int, *, data: bytes = b"", uid: int = 0) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.size, info.uid = kind, mode, len(data), uid
        self._tar.addfile(info, io.BytesIO(data))

    def bytes(self) -> bytes:
        self._tar.close()
        return self._data.getvalue()


def busybox_layers(busybox: Path) -> tuple[bytes, bytes]:
    """Two layers: a system of busybox, and some files on top of it."""
    base = Tree()
    for name in ("bin", "etc", "home", "opt"):
        base.directory(name)
    base.directory("root", 0o700)
    base.directory("tmp", 0o1777)
    base.file("bin/busybox", busybox.read_bytes(), 0o755)
    for applet in APPLETS:
        base.link(f"bin/{applet}", "busybox")
    passwd = "root:x:0:0:root:/root:/bin/sh\njoe:x:1000:1000::/home/joe:/bin/sh\n"
    base.file("etc/passwd", passwd.encode())
    base.file("etc/group", b"root:x:0:\njoe:x:1000:\nwheel:x:10:joe,other\naudio:x:29:\n")
    top = Tree()
    top.file("opt/big", BIG)
    top.file("opt/joes", b"mine", 0o600, uid=1000)
    top.file("opt/plain", b"no program", 0o644)
    return base.bytes(), top.bytes()


def artifact_layer() -> bytes:
    """The layer of a fileset."""
    tree = Tree()
    tree.directory("sub")
    for name, data in FILES_OF_ARTIFACT.items():
        tree.file(name, data)
    return tree.bytes()


async def busybox_image(client: Client) -> images_pb.Image:
    """Makes the image, with a protected fileset in it."""
    manifest = client.blobs.image(*busybox_layers(require_microvms()))
    fileset = client.blobs.artifact(family_by_slug("fileset"), {}, artifact_layer())
    mount = images_pb.Mount(
        family="fileset", manifest_digest=fileset, path=PROTECTED, read_only=True
    )
    made = await client.materialize(manifest, mount)
    return made.image


@contextlib.asynccontextmanager
async def microvms(home: Path) -> AsyncIterator[tuple[VmClient, Client]]:
    """Serves a materializer and vm_runner of a state directory, in this process."""
    async with served(home) as images, served_runner(home) as vm:
        yield vm, images


@contextlib.asynccontextmanager
async def served_runner(
    home: Path, *, agent: Path | None = None, names: tuple[str, ...] = ()
) -> AsyncIterator[VmClient]:
    """Serves vm_runner of a state directory whose materializer is served already.

    Args:
        home: the state directory.
        agent: another guest agent than the one that is shipped.
        names: that are not looked up, as `NAME=ADDRESS`.
    """
    address = f"unix:{home}/vm.sock"
    settings = VmSettings(
        materializer=PeerSettings(target=f"unix:{home}/materializer.sock"),
        kernels=kernel_cache(os.environ),
        agent=agent,
        egress_names=names,
        credentials=home / "credentials.json",
        integrations=home / "integrations.yaml",
        accelerator=AcceleratorMode(os.environ.get("LNS_TEST_ACCELERATOR", "auto")),
        boot_time=240,  # the machine may be busy with other tests
        shutdown_time=120,
    )
    async with (
        open_vm_runner(home, settings) as services,
        running_server(ServerSettings(listen=(address,), grace=0.2), services),
        open_channel(
            PeerSettings(target=address, timeout=240), vm_service_pb2.DESCRIPTOR
        ) as channel,
    ):
        yield VmClient(vm_service_pb2_grpc.VmServiceStub(channel))
