"""What is kept of a suspended run's machine, in its directory: `suspended.state`, `suspended.json`.

The record of the run decides whether they count: only in state `suspended`. What a crash leaves
beside any other state is replaced by the next suspension, and goes with the run.
"""

import asyncio
import json
from pathlib import Path

from services.chassis import durable
from services.core.errors import SavedMachineUnusable

_STATE, _ABOUT = "suspended.state", "suspended.json"
_VERSION = 1


def state_file(directory: Path) -> Path:
    """Returns where a run's machine is saved."""
    return directory / _STATE


async def keep(directory: Path, fingerprint: str) -> None:
    """Says of a state that was written what it can be resumed with; durably.

    Args:
        directory: of the run.
        fingerprint: of the machine.

    Raises:
        OSError: it cannot be written.
    """
    about = json.dumps({"version": _VERSION, "fingerprint": fingerprint}).encode()
    await asyncio.to_thread(durable.write_bytes, directory / _ABOUT, about, mode=0o600)


async def check(directory: Path, fingerprint: str) -> None:
    """Checks that what is saved can be resumed as a machine.

    Raises:
        SavedMachineUnusable: it is of another machine, or not there.
    """
    try:
        about = json.loads(await asyncio.to_thread((directory / _ABOUT).read_bytes))
        is_there = await asyncio.to_thread(state_file(directory).exists)
        known = about["fingerprint"] if about["version"] == _VERSION and is_there else None
    except (OSError, ValueError, KeyError, TypeError):
        known = None
    if known != fingerprint:
        why = "is not there or cannot be read" if known is None else "is of another VMM or kernel"
        raise SavedMachineUnusable(
            f"what was saved of the run's machine {why}, so that it cannot go on",
            hint="put back the QEMU, kernel and lns it was suspended with; or `lns stop` ends it, "
            "and `lns start` begins anew with its writable layer",
        )


async def remove(directory: Path) -> None:
    """Removes what is saved; nothing happens where there is nothing."""
    for name in (_STATE, _ABOUT):
        await asyncio.to_thread((directory / name).unlink, missing_ok=True)
