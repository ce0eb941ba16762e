"""Which guests a host executes, and by which an image is: by itself, or emulated."""

from enum import StrEnum
from typing import Final

from services.core.platforms import Platform, of_cpu


class Architecture(StrEnum):
    """Architectures of hosts and guests, as `uname -m` prints them."""

    X86_64 = "x86_64"
    AARCH64 = "aarch64"

    @classmethod
    def of_machine(cls, machine: str) -> "Architecture | None":
        """Returns the architecture of a machine name as `uname -m` prints it, if it is one."""
        return _OF_PLATFORM.get(Platform.of("linux", machine).architecture)

    @property
    def platform(self) -> Platform:
        """The platform whose images its guests execute, under emulation."""
        return of_cpu(Platform.of("linux", self.value), (), emulated=True)

    @property
    def debian(self) -> str:
        """The distribution's name of it: `amd64`, `arm64`."""
        return self.platform.architecture

    @property
    def others(self) -> "tuple[Architecture, ...]":
        """The architectures that are foreign to a host of this one."""
        return tuple(one for one in Architecture if one is not self)


_OF_PLATFORM: Final = {"amd64": Architecture.X86_64, "arm64": Architecture.AARCH64}


def executed(host: Platform) -> str:
    """Returns what guests of a host execute, as a person reads it."""
    own = _OF_PLATFORM.get(host.architecture)
    others = own.others if own is not None else ()
    emulated = ", ".join(str(one.platform) for one in others)
    return f"{host} (by emulation: {emulated})" if emulated else str(host)


def guest_of(image: Platform, *, host: Platform) -> Architecture | None:
    """Returns the architecture of the guest that executes an image; None where no guest does.

    The host's own comes first: it executes what it can, and images that name no platform.

    Args:
        image: the platform of the image.
        host: what guests of the host's own architecture execute.
    """
    own = _OF_PLATFORM.get(host.architecture)
    if own is None or host.accepts(image):
        return own
    return next((one for one in own.others if one.platform.accepts(image)), None)
