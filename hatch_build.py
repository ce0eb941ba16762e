"""Gives the wheel the tag of the machine whose programs are in it.

The guest agent and the launcher of VMMs are binaries: a wheel for any machine would install where
they cannot be executed.
"""

import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PROGRAMS = "services/vm_runner/*/build/lns-*"


def wheel_tag(root: Path) -> str:
    """Returns the tag of a wheel that is built of a source tree.

    Raises:
        ValueError: programs of several architectures are built, and a wheel is for one.
    """
    found = {
        match[1]
        for path in root.glob(_PROGRAMS)
        if (match := re.fullmatch(r"lns-(?:agent|confine)-(\w+)", path.name))
    }
    if len(found) > 1:
        raise ValueError(f"programs for {', '.join(sorted(found))}: build a wheel for each alone")
    return f"py3-none-linux_{found.pop()}" if found else "py3-none-any"


class TaggedWheel(BuildHookInterface[Any]):
    """Run by hatchling before a wheel is built."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Sets the tag; one that is installed for editing takes what is built when it runs."""
        if version != "editable":
            build_data["tag"] = wheel_tag(Path(self.root))
            build_data["pure_python"] = build_data["tag"].endswith("-any")
