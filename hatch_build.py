"""Gives the wheel the tag of the machine whose programs are in it.

The launcher of VMMs is a program of the host: a wheel for any machine would install where it cannot
be executed. Guest agents are programs of guests, which have either architecture: a wheel carries
each that was built.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_LAUNCHERS = "services/vm_runner/confine/build/lns-confine-*"


def wheel_tag(root: Path) -> str:
    """Returns the tag of a wheel that is built of a source tree.

    Raises:
        ValueError: launchers of several architectures are built, and a wheel is for one.
    """
    found = {
        match[1]
        for path in root.glob(_LAUNCHERS)
        if (match := re.fullmatch(r"lns-confine-(\w+)", path.name))
    }
    if len(found) > 1:
        raise ValueError(f"launchers for {', '.join(sorted(found))}: build a wheel for each alone")
    return f"py3-none-linux_{found.pop()}" if found else "py3-none-any"


class TaggedWheel(BuildHookInterface[Any]):
    """Run by hatchling before a wheel is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Sets the tag; one that is installed for editing takes what is built when it runs."""
        if version != "editable":
            build_data["tag"] = wheel_tag(Path(self.root))
            build_data["pure_python"] = build_data["tag"].endswith("-any")
