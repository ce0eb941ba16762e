"""What this machine can run and what it lacks: the facts of `lns doctor`."""

import os
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from services.core.errors import HostUnready, LnsError
from services.vm_runner.architectures import Architecture

_ROOM_LEAST = 2 << 30

Needs = Mapping[str, Callable[[], Awaitable[str]]]
"""For each thing that is needed, a function that describes it or raises why it cannot be used."""


class Verdict(StrEnum):
    """How a thing stands."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCheck:
    """One thing that a host has or lacks."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReport:
    """Everything that was looked at; the accelerator is empty where no run is possible."""

    checks: tuple[HostCheck, ...]
    accelerator: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AcceleratorReport:
    """How guest code is executed, why, and what would change it where somebody can."""

    accelerator: str
    is_hardware: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfinementReport:
    """How VMMs are confined on this host.

    Attributes:
        detail: the measures that hold.
        missing: those that do not, each with the reason.
    """

    detail: str
    missing: tuple[str, ...]


class Host:
    """This machine.

    Args:
        needs: for each thing that a run needs, a function that describes it or raises why it
            cannot be used.
        accelerator: finds out how guest code is executed; True asks to probe again.
        confinement: finds out how VMMs are confined.
        snapshots: says how snapshots stand.
        home: the state directory, whose disk must have room.
        foreign: the same as `needs` for guests of each other architecture, which need not be had.
        platform: what guests of the host's architecture execute.
        devices: the folder of the host's devices.
    """

    def __init__(
        self,
        *,
        needs: Needs,
        accelerator: Callable[[bool], Awaitable[AcceleratorReport]],
        confinement: Callable[[], Awaitable[ConfinementReport]],
        snapshots: Callable[[], Awaitable[str]],
        home: Path,
        foreign: Mapping[Architecture, Needs] = MappingProxyType({}),
        platform: str = "",
        devices: Path = Path("/dev"),
    ) -> None:
        self._needs = needs
        self._accelerator = accelerator
        self._confinement = confinement
        self._snapshots = snapshots
        self._home = home
        self._foreign = foreign
        self._platform = platform
        self._devices = devices

    async def require(self, foreign: Architecture | None = None) -> None:
        """Checks that a run is possible.

        Args:
            foreign: architecture of its guest; None is the host's own.

        Raises:
            HostUnready: something is missing.
        """
        if foreign is None:
            for need in self._needs.values():
                await need()
            return
        try:
            for need in self._foreign[foreign].values():
                await need()
        except HostUnready as error:
            raise HostUnready(
                f"{foreign.platform} cannot be emulated: {error.message}",
                hint=error.hint,
                metadata={**error.metadata, "platform": str(foreign.platform)},
            ) from error

    async def examine(self, *, again: bool) -> HostReport:
        """Looks at everything; never raises."""
        checks = [await self._check(name, need) for name, need in self._needs.items()]
        missing = [check.name for check in checks if check.verdict is not Verdict.OK]
        check, accelerator = self._untried_accelerator(missing), ""
        if not missing:
            check, accelerator = await self._check_accelerator(again=again)
        checks.insert(0, check)
        checks.append(await self._check_platforms())
        checks.append(await self._check_confinement())
        if not missing:
            checks.append(await self._check("snapshots", self._snapshots))
        checks.append(self._check_disk())
        return HostReport(checks=tuple(checks), accelerator=accelerator)

    @staticmethod
    async def _check(name: str, need: Callable[[], Awaitable[str]]) -> HostCheck:
        try:
            return HostCheck(name=name, verdict=Verdict.OK, detail=await need())
        except LnsError as error:
            return HostCheck(
                name=name, verdict=Verdict.FAILED, detail=error.message, remedy=error.hint
            )

    def _untried_accelerator(self, missing: Sequence[str]) -> HostCheck:
        """Says what can be seen of hardware virtualization where no guest can be booted."""
        device = self._devices / "kvm"
        if not device.exists():
            seen = f"{device} does not exist"
        elif os.access(device, os.R_OK | os.W_OK):
            seen = f"{device} can be opened"
        else:
            seen = f"{device} exists, and this user may not open it"
        return HostCheck(
            name="kvm",
            verdict=Verdict.WARNING,
            detail=f"{seen}; no guest was tried with it, for want of {' and '.join(missing)}",
        )

    async def _check_accelerator(self, *, again: bool) -> tuple[HostCheck, str]:
        try:
            found = await self._accelerator(again)
        except LnsError as error:
            check = HostCheck(
                name="kvm", verdict=Verdict.FAILED, detail=error.message, remedy=error.hint
            )
            return check, ""
        if found.is_hardware:
            return HostCheck(name="kvm", verdict=Verdict.OK, detail=found.detail), found.accelerator
        check = HostCheck(
            name="kvm",
            verdict=Verdict.WARNING,
            detail=found.detail,
            remedy=found.remedy
            or "runs work, but slower: use a machine with working hardware virtualization",
        )
        return check, found.accelerator

    async def _check_platforms(self) -> HostCheck:
        """Says which platforms' images run; what emulates others is a choice, not a need."""
        executed, remedies = [self._platform], []
        for architecture in self._foreign:
            try:
                await self.require(architecture)
                executed.append(f"{architecture.platform} by emulation")
            except LnsError as error:
                executed.append(error.message)
                remedies.append(error.hint)
        return HostCheck(
            name="platforms",
            verdict=Verdict.OK,
            detail="; ".join(filter(None, executed)),
            remedy="; ".join(remedies),
        )

    async def _check_confinement(self) -> HostCheck:
        try:
            found = await self._confinement()
        except LnsError as error:
            return HostCheck(
                name="confinement",
                verdict=Verdict.FAILED,
                detail=error.message,
                remedy=error.hint,
            )
        if not found.missing:
            return HostCheck(name="confinement", verdict=Verdict.OK, detail=found.detail)
        return HostCheck(
            name="confinement",
            verdict=Verdict.WARNING,
            detail=f"{found.detail}; it lacks {'; '.join(found.missing)}",
            remedy="docs/vmm-confinement.md says what each measure needs",
        )

    def _check_disk(self) -> HostCheck:
        free = shutil.disk_usage(self._home).free
        room = f"{free >> 20} MiB are free in {self._home}"
        if free >= _ROOM_LEAST:
            return HostCheck(name="disk", verdict=Verdict.OK, detail=room)
        return HostCheck(
            name="disk",
            verdict=Verdict.WARNING,
            detail=room,
            remedy="make room, or `lns prune`, or set another LNS_HOME",
        )
