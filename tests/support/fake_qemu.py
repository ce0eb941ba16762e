"""A program in QEMU's place that does what a script says: answers, crashes, hangs.

It is started by the real launcher with the real command line, so that it has QEMU's descriptors. A
guest that answers is the guest agent as an ordinary process.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from services.vm_runner.adapters.confinement.cgroups import Cgroups
from services.vm_runner.adapters.confinement.confinement import Confinement, default_launcher
from services.vm_runner.adapters.confinement.host_support import HostSupport
from services.vm_runner.adapters.qemu.accelerator import AcceleratorChoice
from services.vm_runner.adapters.qemu.hypervisor import QemuHypervisor
from services.vm_runner.architectures import Architecture
from services.vm_runner.machines import BootFiles
from services.vm_runner.vmm_options import ConfinementMode
from tests.support.guest_agent import ROOT, require_agent
from tests.support.prerequisites import Prerequisite, missing

ANSWERS = """
import socket
connection, _ = socket.socket(fileno=4).accept()
os.set_inheritable(connection.fileno(), True)
os.execv(AGENT, [AGENT, "--channel", str(connection.fileno())])
"""

CRASHES = """
print("qemu: info: about to fail", file=sys.stderr)
print("qemu: kvm: Assertion failed", file=sys.stderr)
sys.exit(1)
"""

MAY_NOT = """
print("Could not access KVM kernel module: Permission denied", file=sys.stderr)
print("qemu: failed to initialize kvm: Permission denied", file=sys.stderr)
sys.exit(1)
"""

ENDS = "sys.exit(0)"

HANGS = """
os.close(3)  # it does not answer there either
time.sleep(600)
"""

HANGS_AFTER_A_GREETING = """
os.close(3)
import socket
connection, _ = socket.socket(fileno=4).accept()
connection.sendall(b"Booting from ROM...\\r\\n")
time.sleep(600)
"""

_PROGRAM = """#!{python}
import os, sys, time
AGENT = {agent!r}
if "--version" in sys.argv:
    print("QEMU emulator version 0")
    sys.exit(0)
{script}
"""


@dataclass(frozen=True, slots=True)
class _Files:
    """Boot files that nothing boots from."""

    folder: Path

    async def prepare(self) -> BootFiles:
        paths = (self.folder / "vmlinux", self.folder / "initramfs")
        for path in paths:
            path.touch()
        return BootFiles(vmlinux=paths[0], initramfs=paths[1], release="0")


class FakeQemu:
    """The program below a folder, and the real hypervisor around it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.does(ANSWERS)

    def does(self, script: str) -> None:
        """Replaces the program by one that does something else."""
        program = self.folder / "qemu"
        program.write_text(
            _PROGRAM.format(
                python=sys.executable,
                agent=str(require_agent()),
                script=script,
            )
        )
        program.chmod(0o755)

    def hypervisor(self, choice: AcceleratorChoice) -> QemuHypervisor:
        """Returns a hypervisor that starts it; its user stays the test's."""
        launcher = default_launcher(ROOT / "services" / "vm_runner")
        if not launcher.exists():
            missing(Prerequisite.QEMU, f"{launcher} is not built (make guest-agent)")
        support = HostSupport(launcher=launcher, mode=ConfinementMode.AUTO, users=None)
        return QemuHypervisor(
            binary=str(self.folder / "qemu"),
            files=_Files(self.folder),
            choice=choice,
            confinement=Confinement(launcher=launcher, support=support, cgroups=Cgroups(None)),
            architecture=Architecture.X86_64,
        )
