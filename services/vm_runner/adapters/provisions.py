"""What to do where a part of the runner is missing: in a checkout, and in an installed package."""

import platform
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]


def is_checkout(root: Path = _ROOT) -> bool:
    """Says whether lns runs from its own repository, whose scripts are there."""
    return (root / "scripts" / "setup" / "guest-agent").exists()


def kernel_remedy() -> str:
    """Returns how to get a guest kernel."""
    return "`lns setup kernel`, or name a kernel with vm_runner.kernel"


def program_remedy(folder: str, *, root: Path = _ROOT) -> str:
    """Returns how to get a program that is built from `services/vm_runner/FOLDER`."""
    if is_checkout(root):
        return f"make -C services/vm_runner/{folder}"
    return (
        f"this package has no programs for {platform.machine()}: install that of this architecture"
    )
