"""Finds out whether hardware virtualization works, by booting; remembers it for the host's boot.

`/dev/kvm` may open, and even make CPUs, on machines where no stock kernel gets through its early
boot (paravirtual KVM). Only guest code that answers proves anything.
"""

import asyncio
import grp
import json
import os
import pwd
import secrets
import shutil
import stat
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from services.chassis import durable
from services.core.errors import LnsError
from services.vm_runner.adapters.qemu.board import Accelerator
from services.vm_runner.channel.session import open_session
from services.vm_runner.machines import Machine, MachineSpec
from services.vm_runner.vmm_options import AcceleratorMode

log = structlog.get_logger()

_PROBE_MEMORY_MIB = 128
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_GROUP_ACCESS = stat.S_IRGRP | stat.S_IWGRP


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found, why, and what would change it where somebody can."""

    accelerator: Accelerator
    detail: str
    remedy: str = ""


Start = Callable[[MachineSpec, Accelerator], Awaitable[Machine]]


class Choice(Protocol):
    """Chooses how guest code is executed."""

    async def choose(self, start: Start) -> Accelerator:
        """Returns how; `start` starts a guest to try it with."""
        ...


class Emulated:
    """The choice for guests of another architecture than the host's: there is no other."""

    async def choose(self, start: Start) -> Accelerator:
        """Returns emulation."""
        return Accelerator.TCG


class AcceleratorChoice:
    """Chooses between KVM and emulation.

    Args:
        mode: what the settings say.
        directory: where the finding is remembered and the probe runs.
        probe_seconds: longest time for the probe's guest to answer.
        device: KVM's device.
    """

    def __init__(
        self,
        *,
        mode: AcceleratorMode,
        directory: Path,
        probe_seconds: float,
        device: Path = Path("/dev/kvm"),
    ) -> None:
        self._mode = mode
        self._directory = directory
        self._probe_seconds = probe_seconds
        self._device = device
        self._finding: Finding | None = None
        self._lock = asyncio.Lock()

    async def choose(self, start: Start) -> Accelerator:
        """Returns how to execute guest code, probing once for each boot of the host."""
        return (await self.find(start)).accelerator

    async def find(self, start: Start, *, again: bool = False) -> Finding:
        """Returns the finding; `again` probes anew."""
        async with self._lock:
            if again or self._finding is None:
                self._finding = await self._look(start, again=again)
                log.info(
                    "accelerator",
                    accelerator=self._finding.accelerator,
                    detail=self._finding.detail,
                )
            return self._finding

    async def _look(self, start: Start, *, again: bool) -> Finding:
        if self._mode is AcceleratorMode.KVM:
            return Finding(accelerator=Accelerator.KVM, detail="set by vm_runner.accelerator")
        if self._mode is AcceleratorMode.TCG:
            return Finding(accelerator=Accelerator.TCG, detail="set by vm_runner.accelerator")
        if not self._device.exists():
            return _emulation(f"{self._device} does not exist: no virtualization, or not passed on")
        if not os.access(self._device, os.R_OK | os.W_OK):
            return _forbidden(self._device)
        if not again and (remembered := self._remembered()):
            return remembered
        finding = await self._probe(start)
        self._remember(finding)
        return finding

    async def _probe(self, start: Start) -> Finding:
        directory = self._directory / f".probe-{secrets.token_hex(4)}"
        directory.mkdir(mode=0o700, parents=True)
        spec = MachineSpec(
            run_id=f"probe-{secrets.token_hex(8)}",
            directory=directory,
            vcpus=1,
            memory_mib=_PROBE_MEMORY_MIB,
            disks=(),
        )
        try:
            began = time.monotonic()
            machine = await start(spec, Accelerator.KVM)
            try:
                return await self._answer(machine, began)
            finally:
                await machine.kill()
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    async def _answer(self, machine: Machine, began: float) -> Finding:
        try:
            connection = await machine.connect()
            async with open_session(connection, answer_seconds=self._probe_seconds):
                seconds = time.monotonic() - began
                return Finding(
                    accelerator=Accelerator.KVM,
                    detail=f"works: a guest answered in {seconds:.1f} s",
                )
        except LnsError as error:
            found = await machine.diagnose()
            said = found.messages.splitlines() or [found.end or error.message]
            return _emulation(f"{self._device} exists, but no guest runs with it: {said[-1]}")

    def _path(self) -> Path:
        return self._directory / "accelerator.json"

    def _remembered(self) -> Finding | None:
        try:
            found = json.loads(self._path().read_bytes())
            if found["boot_id"] == _boot_id():
                return Finding(
                    accelerator=Accelerator(found["accelerator"]), detail=str(found["detail"])
                )
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def _remember(self, finding: Finding) -> None:
        found = {
            "boot_id": _boot_id(),
            "accelerator": finding.accelerator.value,
            "detail": finding.detail,
        }
        durable.write_bytes(self._path(), json.dumps(found).encode())


def _emulation(reason: str) -> Finding:
    return Finding(accelerator=Accelerator.TCG, detail=f"emulation: {reason}")


def access_remedy(device: Path, *, mode: int, group: str, user: str) -> str:
    """Returns what lets a user open a device; its group helps only where the group may itself.

    Args:
        device: of the host.
        mode: its permissions.
        group: the name of its group.
        user: the name of the user.
    """
    opens = group != "root" and mode & _GROUP_ACCESS == _GROUP_ACCESS
    first = "" if opens else f"sudo chgrp kvm {device} && sudo chmod 660 {device}, "
    joined = group if opens else "kvm"
    return f"{first}sudo usermod -aG {joined} {user}, log in again, then lns service restart"


def _forbidden(device: Path) -> Finding:
    status = device.stat()
    return Finding(
        accelerator=Accelerator.TCG,
        detail=f"emulation: {device} may not be opened by this user",
        remedy=access_remedy(
            device, mode=status.st_mode, group=_group_name(status.st_gid), user=_user_name()
        ),
    )


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return "USER"


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip()
