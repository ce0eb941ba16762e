"""What to do where a part of the runner is missing: in a checkout, and in an installed package."""

import platform
from pathlib import Path

from services.vm_runner.architectures import Architecture

_ROOT = Path(__file__).resolve().parents[3]
_FOREIGN = "`lns setup foreign`"


def is_checkout(root: Path = _ROOT) -> bool:
    """Says whether lns runs from its own repository, whose scripts are there."""
    return (root / "scripts" / "setup" / "guest-agent").exists()


def is_foreign(architecture: Architecture) -> bool:
    """Says whether an architecture is not this machine's."""
    return Architecture.of_machine(platform.machine()) is not architecture


def kernel_remedy(architecture: Architecture) -> str:
    """Returns how to get a guest kernel of an architecture."""
    if is_foreign(architecture):
        return _FOREIGN
    return "`lns setup kernel`, or name a kernel with vm_runner.kernel"


def emulator_remedy(architecture: Architecture) -> str:
    """Returns how to get QEMU for guests of an architecture."""
    return _FOREIGN if is_foreign(architecture) else "`lns setup qemu`"


def program_remedy(
    folder: str, architecture: Architecture | None = None, *, root: Path = _ROOT
) -> str:
    """Returns how to get a program that is built from `services/vm_runner/FOLDER`.

    Args:
        folder: of its source.
        architecture: of the program; None is this machine's.
        root: of what lns runs from.
    """
    if architecture is not None and is_foreign(architecture):
        if is_checkout(root):
            return f"scripts/setup/apt foreign && scripts/setup/guest-agent {architecture}"
        return f"this package has no agent for {architecture}: install one that has both"
    if is_checkout(root):
        return f"make -C services/vm_runner/{folder}"
    return (
        f"this package has no programs for {platform.machine()}: install that of this architecture"
    )
