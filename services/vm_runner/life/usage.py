"""What a run uses now."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

from services.core.errors import LnsError
from services.vm_runner.life.run_life import RunLife
from services.vm_runner.machines import MachineUsage
from services.vm_runner.ports import RunStore
from services.vm_runner.records.runs import RunState, RunUsage

_STATS_SECONDS = 2.0
_NOTHING = MachineUsage(cpu_time=timedelta(), memory_bytes=0)


async def usage_of(life: RunLife, store: RunStore) -> RunUsage:
    """Returns what a run uses now; zeros for what cannot be asked."""
    boot = life.living.boot
    machine, session = (boot.machine, boot.session) if boot else (None, None)
    used = await machine.usage() if machine else _NOTHING
    pids = 0
    if session is not None and life.run.state is not RunState.PAUSED:
        with contextlib.suppress(LnsError, TimeoutError):
            async with asyncio.timeout(_STATS_SECONDS):
                pids = (await session.stats()).pids
    return RunUsage(
        run=life.run,
        cpu_time=used.cpu_time,
        memory_bytes=used.memory_bytes,
        disk_bytes=await store.size(life.run.run_id),
        channel_in_bytes=session.channel.bytes_in if session else 0,
        channel_out_bytes=session.channel.bytes_out if session else 0,
        pids=pids,
        sample_time=datetime.now(UTC),
        services=await life.boundary.budgets.standing(),
    )
