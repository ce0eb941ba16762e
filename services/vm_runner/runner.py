"""The runs of a node: made, ended, removed, recovered."""

import asyncio
import contextlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from services.core.errors import (
    LnsError,
    RequestInvalid,
    RunStateConflict,
    RunUnknown,
    Unimplemented,
    VmFailed,
)
from services.core.run_plan import RunPlan, VolumeKind
from services.vm_runner.life.exit_status import signal_number
from services.vm_runner.life.guest_plan import guest_root, machine_spec
from services.vm_runner.life.run_life import RunLife
from services.vm_runner.life.surroundings import Surroundings
from services.vm_runner.machines import Machine
from services.vm_runner.records import groups, lifecycle, names, naming
from services.vm_runner.records.groups import Group
from services.vm_runner.records.register import Register
from services.vm_runner.records.runs import Failure, Run, RunOptions, RunState, RunUsage
from services.vm_runner.snapshots.snapshot import Snapshot
from services.vm_runner.storage.volumes import named_mounts

log = structlog.get_logger()

_KILL_SECONDS = 5.0
_KILL = 9


class Runner:
    """Every recorded run of this node; one object owns them."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings
        self.register: Register[RunLife] = Register()
        self._naming = asyncio.Lock()
        self._closing = False

    # ---- beginning and end of the service ----

    async def recover(self) -> None:
        """Takes up every recorded run: adopts live microVMs, records dead ones as lost."""
        await self._around.volumes.load()
        for run in await self._around.store.load():
            life = self._add(run)
            machine = await self._around.hypervisor.adopt(
                run.run_id, self._around.store.directory(run.run_id)
            )
            await self._recover_one(life, machine)
        log.info("runs_recovered", runs=len(self.register.lives()))

    async def _recover_one(self, life: RunLife, machine: Machine | None) -> None:
        if life.run.state not in lifecycle.LIVE:
            if machine is not None:  # its end was recorded, then the service ended
                life.finish(machine)
            return
        if machine is not None or lifecycle.waits_to_boot(life.run):
            pid = machine.pid if machine else 0
            log.info("run_adopted", run_id=life.run.run_id, pid=pid)
            await life.adopt(machine)
            return
        failure = Failure.of(
            VmFailed(
                f"the microVM of run {life.run.name} ended while no service watched it",
                hint="start it again; its writable layer is kept",
            )
        )
        await life.update(lifecycle.lost(life.run, failure, now=_now()))
        log.warning("run_lost", run_id=life.run.run_id)
        if lifecycle.wants_restart(life.run):
            await life.start_by_policy()

    async def close(self) -> None:
        """Lets go of every run; live ones go on."""
        self._closing = True
        await asyncio.gather(*(life.close() for life in self.register.lives()))

    # ---- runs ----

    async def create(
        self,
        *,
        plan: RunPlan,
        options: RunOptions,
        image_digest: str,
        request_id: str,
        start: bool,
        group: Group | None = None,
    ) -> Run:
        """Records a run and starts it if asked to; the same request gives the same run.

        Raises:
            RequestInvalid: a value cannot be used.
            NameTaken: another run has the name.
            Unimplemented: the plan wants something that this version does not do.
            ImageUnknown: the image is not in the store.
        """
        _check(plan, options, image_digest)
        if group is not None:
            groups.check(group, plan.member)
        async with self._naming:
            if known := self.register.of_request(request_id):
                return known.run
            runs = self.register.runs()
            group = naming.join(runs, group, plan)
            suggestion = f"{group.name}-{plan.member}" if group is not None else plan.name
            run = Run(
                run_id=secrets.token_hex(16),
                request_id=request_id,
                name=naming.choose_name(runs, options.name, suggestion),
                group=group,
                plan=plan,
                image_digest=image_digest,
                options=options,
                create_time=_now(),
                sequence=1,
            )
            if image_digest:
                await self._around.images.lease(run.run_id, image_digest)
            try:
                await self._around.store.save(run)
            except BaseException:
                await self._release(run)
                raise
            life = self._add(run)
        if start:
            try:
                await life.start()
            except LnsError:  # a port that is taken: what was not accepted is not recorded
                await self._forget(life)
                raise
        return life.run

    async def start(self, text: str) -> Run:
        """Starts a run that was created or ended."""
        life = self.register.find(text)
        lifecycle.require(
            life.run,
            RunState.CREATED, RunState.EXITED, RunState.FAILED, RunState.LOST,
            to="start",
        )  # fmt: skip
        await life.start()
        return life.run

    async def stop(self, text: str, *, seconds: float | None = None) -> Run:
        """Asks the workload to end, ends it by force after a time, returns when it has ended."""
        life = self.register.find(text)
        run = life.run
        if run.state not in lifecycle.LIVE:
            await life.give_up_restart()
            return life.run
        if run.state is RunState.PAUSED and life.machine is not None:
            await life.machine.resume()
        was_starting = run.state is RunState.STARTING
        await life.update(lifecycle.stopping(life.run))
        if not was_starting:
            life.signal(signal_number(run.options.stop_signal))
            wait = run.options.stop_timeout if seconds is None else seconds
            if await life.ends_within(wait):
                return life.run
            life.signal(_KILL)
            if await life.ends_within(_KILL_SECONDS):
                return life.run
        await life.cut_off()
        return await life.wait_ended()

    async def kill(self, text: str, *, signal: str = "KILL") -> Run:
        """Sends a signal to the workload."""
        life = self.register.find(text)
        number = signal_number(signal or "KILL")
        life.guest()
        life.signal(number)
        return life.run

    async def pause(self, text: str) -> Run:
        """Holds a run's CPUs; a paused one stays so."""
        life = self.register.find(text)
        if life.run.state is RunState.PAUSED:
            return life.run
        lifecycle.require(life.run, RunState.RUNNING, to="pause")
        if life.machine is not None:
            await life.machine.pause()
        await life.update(lifecycle.paused(life.run))
        return life.run

    async def resume(self, text: str) -> Run:
        """Lets a paused run go on; a running one does."""
        life = self.register.find(text)
        if life.run.state is RunState.RUNNING:
            return life.run
        lifecycle.require(life.run, RunState.PAUSED, to="resume")
        if life.machine is not None:
            await life.machine.resume()
        await life.update(lifecycle.resumed(life.run))
        return life.run

    async def rename(self, text: str, name: str) -> Run:
        """Gives a run another name.

        Raises:
            NameTaken: another run has it.
            RequestInvalid: it cannot be a name.
        """
        life = self.register.find(text)
        async with self._naming:
            names.check(name)
            if name != life.run.name:
                naming.choose_name(self.register.runs(), name, "")
            await life.update(replace(life.run, name=name))
        return life.run

    async def remove(self, text: str, *, force: bool = False) -> str:
        """Removes a run with its writable layer and log; returns its id.

        Raises:
            RunStateConflict: it is alive, and force is not asked for.
        """
        life = self.register.find(text)
        if life.run.state in lifecycle.LIVE:
            if not force:
                raise RunStateConflict(
                    f"run {life.run.name} is {life.run.state}",
                    hint="stop it first, or `lns rm -f` it",
                    metadata={"run_id": life.run.run_id},
                )
            await life.update(lifecycle.stopping(life.run))
            await life.cut_off()
            await life.wait_ended()
        await life.settle()
        await self._forget(life)
        return life.run.run_id

    async def prune_volumes(self, *, dry_run: bool = False) -> tuple[list[str], int]:
        """Removes the volumes that no recorded run names; returns names and freed bytes."""
        volumes = self._around.volumes
        needed = frozenset(
            mount.source for run in self.register.runs() for mount in named_mounts(run)
        )
        unused = volumes.unused(needed)
        freed = 0
        for name in unused:
            freed += (await volumes.get(name)).used_bytes if dry_run else await volumes.remove(name)
        return unused, freed

    async def prune(self, *, dry_run: bool = False) -> tuple[list[str], int]:
        """Removes every ended run; returns their ids and the bytes that became free."""
        ended = [life for life in self.register.lives() if life.run.state in lifecycle.ENDED]
        freed = 0
        for life in ended:
            freed += await self._around.store.size(life.run.run_id)
            if not dry_run:
                with contextlib.suppress(RunUnknown, RunStateConflict):
                    await self.remove(life.run.run_id)
        return [life.run.run_id for life in ended], freed

    async def usage(self, wanted: Iterable[str]) -> list[RunUsage]:
        """Returns what runs use, sorted by name; of all that are alive if none is named."""
        lives = [self.register.find(text) for text in wanted] or self.register.live()
        usages = await asyncio.gather(*(life.usage() for life in lives))
        return sorted(usages, key=lambda usage: usage.run.name)

    async def warm(self, plan: RunPlan, image_digest: str) -> Snapshot:
        """Makes the snapshot for runs of a plan, and a machine that waits for the next one.

        Raises:
            RequestInvalid: the plan has named volumes, or snapshots are turned off.
            ImageUnknown: the image is not in the store.
            LnsError: it cannot be made.
        """
        if any(mount.kind is not VolumeKind.BIND for mount in plan.volumes):
            raise RequestInvalid(
                "a machine with named volumes cannot wait for a run", hint="leave -v out"
            )
        run_id = f"warm-{secrets.token_hex(8)}"
        run = Run(
            run_id=run_id,
            name=run_id,
            plan=plan,
            image_digest=image_digest,
            create_time=_now(),
        )
        around = self._around
        image = await around.images.lease(run_id, image_digest) if image_digest else None
        try:
            spec = machine_spec(
                run,
                image,
                directory=around.store.directory(run_id),
                volumes=(),
                default_disk=around.limits.disk_bytes,
            )
            return await around.starts.warm(spec, guest_root(run, image))
        finally:
            await self._release(run)

    # ---- inside ----

    def _add(self, run: Run) -> RunLife:
        life = RunLife(run, self._around, peers=self.register.member, on_ended=self._on_ended)
        self.register.add(life)
        return life

    async def _on_ended(self, life: RunLife) -> None:
        if life.run.options.remove and not self._closing:
            await self._forget(life)

    async def _forget(self, life: RunLife) -> None:
        run = life.run
        if not self.register.drop(run):
            return
        await self._around.store.remove(run.run_id)
        await self._release(run)
        life.removed()

    async def _release(self, run: Run) -> None:
        if not run.image_digest:
            return
        try:
            await self._around.images.release(run.run_id)
        except LnsError as error:  # the image is kept longer than it needs to be, no more
            log.warning("lease_not_released", run_id=run.run_id, message=error.message)


def _check(plan: RunPlan, options: RunOptions, image_digest: str) -> None:
    if plan.image is not None and not image_digest:
        raise RequestInvalid("a plan with an image needs `image_digest`")
    if image_digest and not re.fullmatch(r"sha256:[0-9a-f]{64}", image_digest):
        raise RequestInvalid("`image_digest` is not a digest")
    signal_number(options.stop_signal)
    if plan.has_workflow:
        raise Unimplemented("runs with a workflow are not implemented: its steps would be ignored")
    _check_volumes(plan)


def _check_volumes(plan: RunPlan) -> None:
    modes: dict[str, bool] = {}
    for mount in plan.volumes:
        if mount.kind is VolumeKind.BIND:
            continue
        names.check(mount.source)
        if modes.setdefault(mount.source, mount.read_only) != mount.read_only:
            raise RequestInvalid(
                f"volume {mount.source} is mounted twice, once to be written to and once read-only"
            )


def _now() -> datetime:
    return datetime.now(UTC)
