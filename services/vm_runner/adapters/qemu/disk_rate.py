"""The rate that all disks of a microVM share, as QEMU's command line has it."""

import json
from dataclasses import dataclass

DISK_RATE = "disk-rate"
"""Name of the group in which the disks are."""


@dataclass(frozen=True, slots=True)
class DiskRate:
    """`-object throttle-group`: what all disks read and write together, in bytes a second."""

    bytes_a_second: int

    def arguments(self) -> tuple[str, ...]:
        """Returns the switch and its value."""
        limits = {"bps-total": self.bytes_a_second}
        return (
            "-object",
            json.dumps({"qom-type": "throttle-group", "id": DISK_RATE, "limits": limits}),
        )
