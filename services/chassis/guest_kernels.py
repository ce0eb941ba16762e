"""Where guest kernels are on this machine, and which one a user chose.

`lns setup` writes there, vm_runner reads: a folder for each kernel of the distribution
(`boot/vmlinuz-*`, `lib/modules/*`); below `named` the same for those that a user named, and a link
to the one of them that was chosen.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

CHOSEN: Final = "chosen"
"""The link among the folders of kernels that names the one to use, whatever its version."""

NAMED: Final = "named"
"""The folder with the kernels that users named: none of them is used for being the newest."""


FOREIGN: Final = "foreign"
"""The folder with the kernels of guests of another architecture than this machine's: a folder of
kernels of its own, so that none of them is ever the newest of this machine's."""


def kernel_cache(environment: Mapping[str, str]) -> Path:
    """Returns the folder `lns/kernel` in the user's cache directory."""
    cache = environment.get("XDG_CACHE_HOME", "")
    if cache.startswith("/"):
        return Path(cache) / "lns" / "kernel"
    home = Path(environment["HOME"]) if environment.get("HOME") else Path.home()
    return home / ".cache" / "lns" / "kernel"


def kernel_folders(kernels: Path) -> list[Path]:
    """Returns the folders to look for a kernel in: the chosen one, else all but those named."""
    chosen = kernels / CHOSEN
    return [chosen] if chosen.is_dir() else list(kernels.glob("*"))
