"""What this machine is, as far as images are concerned."""

import platform
from pathlib import Path

from services.core.platforms import EMULATED_X86_LEVEL, Platform, of_cpu, x86_level

_CPU_INFO = Path("/proc/cpuinfo")
_READ_BYTES = 64 << 10


def own_platform(setting: str = "") -> Platform:
    """Returns the platform of images for this machine, with the variant that every guest executes.

    A guest's CPU is the host's or, without hardware virtualization, QEMU's. Who chooses an image
    does not know which it will be, so the variant is one that both have.

    Args:
        setting: a platform that a setting names instead; empty for none.

    Raises:
        RequestInvalid: the setting is not a platform.
    """
    if setting:
        return Platform.parse(setting)
    machine = Platform.of("linux", platform.machine())
    flags = cpu_flags()
    return of_cpu(machine, flags, emulated=x86_level(flags) > EMULATED_X86_LEVEL)


def cpu_flags() -> frozenset[str]:
    """Returns the features of the host's first CPU as /proc/cpuinfo names them; none if unknown."""
    try:
        with _CPU_INFO.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_READ_BYTES)
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
