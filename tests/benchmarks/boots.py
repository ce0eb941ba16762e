"""Starts of microVMs, against a bare boot of the same kernel and against a container."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.vm_runner.adapters.boot_files.initramfs import build_initramfs
from services.vm_runner.adapters.boot_files.kernel_image import extract_kernel
from services.vm_runner.adapters.qemu import board
from services.vm_runner.adapters.qemu.command_line import Bare, Memory, Smp, Switch
from services.vm_runner.architectures import Architecture
from tests.benchmarks.client import Client, run_suite
from tests.benchmarks.harness import (
    Comparison,
    Comparisons,
    Contender,
    Figure,
    Form,
    Quantity,
    Sample,
    Unavailable,
)
from tests.benchmarks.measure import shared_out_bytes
from tests.benchmarks.podman import open_podman
from tests.benchmarks.registries import run_registry
from tests.benchmarks.workspace import new_folder

_CPUS = 1
_MEMORY_MIB = 512
_SIZE = ("--cpus", str(_CPUS), "--memory", f"{_MEMORY_MIB}Mi")
_VMS = 10
_OUTPUT_MIB = 64
_SETTLE_SECONDS = 3.0
_READY_SECONDS = 120.0
_QUIET_SECONDS = 0.5
_MARKER = b"bare init"


@dataclass(frozen=True, slots=True, kw_only=True)
class BareBoot:
    """A kernel and an initial file system whose init says that it runs, and nothing else.

    Attributes:
        vmlinux: the kernel that lns boots.
        initramfs: init alone.
        accelerator: how lns executes guests on this machine.
    """

    vmlinux: Path
    initramfs: Path
    accelerator: board.Accelerator

    def plain(self) -> Sample:
        """Boots as one would who types the command."""
        return self._boot(
            [
                "qemu-system-x86_64",
                *("-machine", "q35", "-accel", self.accelerator, "-cpu", self._cpu),
                *("-smp", str(_CPUS), "-m", f"{_MEMORY_MIB}M"),
                *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
                *("-kernel", str(self.vmlinux), "-initrd", str(self.initramfs)),
                *("-append", "console=ttyS0 quiet panic=-1"),
            ]
        )

    def as_lns_does(self) -> Sample:
        """Boots with the switches and kernel parameters of lns."""
        architecture = Architecture.X86_64
        used: Sequence[Switch] = (
            Bare(),
            board.Machine(architecture),
            board.Accel(self.accelerator),
            board.Cpu(self.accelerator, architecture),
            Smp(_CPUS),
            Memory(_MEMORY_MIB),
            board.Kernel(self.vmlinux, self.initramfs, architecture),
        )
        arguments = [argument for one in used for argument in one.arguments()]
        return self._boot(["qemu-system-x86_64", *arguments, "-serial", "stdio"])

    @property
    def _cpu(self) -> str:
        return "host" if self.accelerator is board.Accelerator.KVM else "max"

    def _boot(self, command: Sequence[str]) -> Sample:
        begin = time.perf_counter()
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            try:
                assert process.stdout is not None
                said = b""
                while _MARKER not in said:
                    piece = os.read(process.stdout.fileno(), 4096)
                    if not piece:
                        raise RuntimeError(f"QEMU ended: {said.decode(errors='replace')[-500:]}")
                    said += piece
                return Sample(wall=time.perf_counter() - begin)
            finally:
                process.kill()


def starts() -> Comparisons:
    """`lns run … -- true`: by a machine that waits, from a snapshot, from scratch."""
    with prepared() as (client, bare, reference), open_podman() as podman:
        with contextlib.suppress(Unavailable):
            podman.pull(reference)
        how = f"({bare.accelerator})"
        yield Comparison(
            title=f"a command in a new microVM, {_CPUS} CPU, {_MEMORY_MIB} MiB {how}",
            contenders=[
                Contender(name="bare QEMU to init", take=bare.plain),
                Contender(name="the same, switches of lns", take=bare.as_lns_does),
                Contender(name="podman run", take=lambda: podman.run_container(reference, "true")),
                Contender(name="lns run --cold", take=lambda: _run(client, reference, "--cold")),
                Contender(
                    name="lns run, snapshot", take=lambda: _run_none_ahead(client, reference)
                ),
                Contender(name="lns run, ahead", take=lambda: _run_ahead(client, reference)),
            ],
            figures=[
                Figure(
                    contender="lns run --cold",
                    against="bare QEMU to init",
                    form=Form.EXCESS,
                    limit=0.35,
                ),
                Figure(contender="lns run, ahead", against="bare QEMU to init", limit=0.06),
                Figure(contender="lns run, ahead", against="podman run", limit=0.7),
                Figure(contender="lns run, ahead", against="podman run", limit=0.5),
                Figure(contender="lns run, snapshot", against="bare QEMU to init", limit=0.15),
                Figure(contender="lns run, snapshot", against="podman run", limit=2.0),
                Figure(contender="lns run, snapshot", against="podman run", limit=1.5),
            ],
            notes=[
                "image and services are ready; the command's wall time, to its exit",
                "processor time and memory are those of the client's process alone",
                "ahead: a machine waits; snapshot: another run has just taken it",
                f"one cold start: {_phases(client, reference, '--cold')}",
                f"one start: {_phases(client, reference)}",
            ],
        )


def output() -> Comparisons:
    """What a workload writes, until the client has it."""
    with prepared() as (client, bare, reference), open_podman() as podman:
        with contextlib.suppress(Unavailable):
            podman.pull(reference)
        write = ("head", "-c", f"{_OUTPUT_MIB}M", "/dev/zero")
        yield Comparison(
            title=f"{_OUTPUT_MIB} MiB of standard output, start included ({bare.accelerator})",
            contenders=[
                Contender(name="podman run", take=lambda: podman.run_container(reference, *write)),
                Contender(name="lns run", take=lambda: _run(client, reference, command=write)),
            ],
            work=(_OUTPUT_MIB, "MiB"),
        )


def memory() -> Comparisons:
    """What ten identical idle microVMs take."""
    with prepared() as (client, bare, reference):
        sizes: list[int] = []
        for number in range(_VMS):
            client.ask(
                "run", "--detach", "--name", f"vm{number}", *_SIZE, reference, "--", "sleep", "600"
            )
            if number in (0, _VMS - 1):
                time.sleep(_SETTLE_SECONDS)
                sizes.append(shared_out_bytes(client.vmm_processes()[-1]))
        yield Comparison(
            title=f"idle microVMs of {_MEMORY_MIB} MiB ({bare.accelerator})",
            contenders=[
                Contender(name="the first, alone", take=lambda: Sample(bytes=sizes[0])),
                Contender(name="the tenth of ten", take=lambda: Sample(bytes=sizes[1])),
            ],
            figures=[
                Figure(
                    contender="the tenth of ten",
                    against="the first, alone",
                    limit=0.6,
                    quantity=Quantity.BYTES,
                )
            ],
            bytes_are="PSS",
            notes=["measured once, of the VMM's process"],
        )


def _run(
    client: Client, reference: str, *options: str, command: Sequence[str] = ("true",)
) -> Sample:
    return client.run("run", "--rm", "--quiet", *_SIZE, *options, reference, "--", *command)


def _run_ahead(client: Client, reference: str) -> Sample:
    """Runs when a machine waits for it."""
    deadline = time.monotonic() + _READY_SECONDS
    while not _machines_ahead(client):
        if time.monotonic() > deadline:
            raise Unavailable("no machine waits: `lns service logs` says why")
        time.sleep(0.2)
    time.sleep(_QUIET_SECONDS)
    return _run(client, reference)


def _run_none_ahead(client: Client, reference: str) -> Sample:
    """Runs when another run has just taken the machine that waited."""
    _run_ahead(client, reference)
    return _run(client, reference)


def _machines_ahead(client: Client) -> int:
    lines = client.ask("snapshot", "ls", "--format", "json").splitlines()
    return sum(int(json.loads(line)["ahead"]) for line in lines)


def _phases(client: Client, reference: str, *options: str) -> str:
    """Runs once and returns what the service recorded of the start."""
    client.ask("run", "--quiet", "--name", "phases", *_SIZE, *options, reference, "--", "true")
    recorded = json.loads(client.ask("inspect", "--type", "run", "--format", "json", "phases"))
    client.ask("rm", "phases")
    return ", ".join(f"{name} {taken}" for name, taken in recorded["boot_times"].items())


@contextlib.contextmanager
def prepared() -> Iterator[tuple[Client, BareBoot, str]]:
    """Services that have run the demo's image once, both ways, and what a bare boot needs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "lns")
    layout = cache / "rootfs/current/oci"
    kernels = sorted(cache.glob("kernel/*/boot/vmlinuz-*-amd64"))
    if not layout.exists() or not kernels:
        raise Unavailable("the demo's image or the guest kernel is missing: run make setup")
    with run_registry() as registry, run_suite() as client, new_folder() as folder:
        reference = f"{registry.new_repository()}:v1"
        copy = ["skopeo", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]
        subprocess.run([*copy, f"oci:{layout}:latest", f"docker://{reference}"], check=True)
        for options in ([], ["--cold"]):
            _run(client, reference, *options)
        client.run("warm", *_SIZE, reference)
        yield client, _bare_boot(folder, kernels[-1], client.accelerator), reference


def _bare_boot(folder: Path, kernel: Path, accelerator: str) -> BareBoot:
    source = Path(__file__).with_name("peers") / "init.c"
    init = folder / "init"
    subprocess.run(["musl-gcc", "-static", "-Os", "-o", init, source], check=True)
    vmlinux, initramfs = folder / "vmlinux", folder / "initramfs"
    vmlinux.write_bytes(extract_kernel(kernel.read_bytes(), Architecture.X86_64, name=kernel.name))
    initramfs.write_bytes(build_initramfs(agent=init.read_bytes(), modules=()))
    return BareBoot(
        vmlinux=vmlinux, initramfs=initramfs, accelerator=board.Accelerator(accelerator)
    )
