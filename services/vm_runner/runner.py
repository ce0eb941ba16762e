"""The runs of a node: made, ended, removed, recovered."""

import asyncio
import contextlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from services.chassis import context
from services.core.errors import (
    InUse,
    LnsError,
    RequestInvalid,
    RunStateConflict,
    RunUnknown,
    Unimplemented,
    VolumeUnknown,
)
from services.core.run_plan import RunPlan, VolumeKind
from services.vm_runner.architectures import Architecture
from services.vm_runner.life import snapshotting
from services.vm_runner.life.exit_status import signal_number
from services.vm_runner.life.guest_plan import guest_root, machine_spec
from services.vm_runner.life.recovery import take_up
from services.vm_runner.life.run_life import RunLife
from services.vm_runner.life.surroundings import Surroundings
from services.vm_runner.life.usage import usage_of
from services.vm_runner.network.consent import check_ports
from services.vm_runner.ports import Image
from services.vm_runner.records import groups, lifecycle, names, naming
from services.vm_runner.records.groups import Group
from services.vm_runner.records.register import Register
from services.vm_runner.records.runs import Run, RunOptions, RunState, RunUsage
from services.vm_runner.records.unread import unread_with
from services.vm_runner.snapshots.forked import forked_options, forked_plan
from services.vm_runner.snapshots.saved_run import SavedRun
from services.vm_runner.snapshots.snapshot import Snapshot
from services.vm_runner.storage.volumes import named_mounts

log = structlog.get_logger()


class Runner:
    """Every recorded run of this node.

    What happens to one run is its `RunLife`'s; here is what is decided between runs: names, groups,
    and which request made which run.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._around = surroundings
        self.events = surroundings.events
        self.saved = surroundings.saved
        self.register: Register[RunLife] = Register()
        self._coming: dict[str, Run] = {}
        self._claimed: set[str] = set()
        self._creating: dict[str, asyncio.Task[Run]] = {}

    # ---- beginning and end of the service ----

    async def recover(self) -> None:
        """Takes up every recorded run: adopts live microVMs, records dead ones as lost.

        Runs do not wait for each other: what one binds may be on a disk that does not answer.
        """
        await self._around.answered.load()
        await self._around.volumes.load()
        runs = await self._around.store.load()
        outcomes = await asyncio.gather(*map(self._take_up, runs), return_exceptions=True)
        for run, outcome in zip(runs, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                log.error("run_not_recovered", run_id=run.run_id, exc_info=outcome)
        log.info("runs_recovered", runs=len(self.register.lives()))

    async def _take_up(self, run: Run) -> None:
        life = None if lifecycle.is_unread(run) else self._add(run)  # it is known at once
        directory = self._around.store.directory(run.run_id)
        machine = await self._around.hypervisor.adopt(run.run_id, directory)
        if life is None:  # with all that it can be seen to have
            if machine is not None:
                names = self._around.volumes.named_by(machine.open_files())
                run = unread_with(run, pid=machine.pid, volumes=names)
            life = self._add(run)
        await take_up(life, machine)

    async def close(self) -> None:
        """Lets go of every run; live ones go on."""
        creating = list(self._creating.values())
        await asyncio.gather(*creating, return_exceptions=True)
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
        from_snapshot: str = "",
        keep_policy: bool = False,
    ) -> Run:
        """Records a run and starts it if asked to; the same request gives the same run.

        With `from_snapshot` it goes on from there: see `forked_plan` and `forked_options`.

        Raises:
            RequestInvalid: a value cannot be used.
            SnapshotUnknown: no snapshot of a run is called `from_snapshot`.
            NameTaken: another run has the name.
            Unimplemented: the plan wants something that this version does not do.
            PlatformUnsupported: no guest of this machine executes the image.
            ImageUnknown: the image is not in the store.
        """
        if from_snapshot:
            saved = self.saved.find(from_snapshot)
            plan = forked_plan(saved, plan, keep_policy=keep_policy)
            options = forked_options(saved, options, keep_policy=keep_policy)
            image_digest, from_snapshot = saved.origin.image_digest, saved.snapshot_id
        _check(plan, options, image_digest)
        self._around.foreign_guest(plan)
        check_ports(plan, plain_registries=self._around.plain_registries)
        if group is not None:
            groups.check(group, plan.member)
        if request_id and request_id in self._creating:
            return await asyncio.shield(self._creating[request_id])
        if known := self.register.of_request(request_id):
            return known.run
        run = self._name(
            Run(
                run_id=secrets.token_hex(16),
                request_id=request_id,
                name=options.name,
                group=group,
                plan=plan,
                image_digest=image_digest,
                options=options,
                create_time=_now(),
                sequence=1,
                from_snapshot=from_snapshot,
            )
        )
        # The client may leave; whether there is a run is decided all the same.
        task = asyncio.get_running_loop().create_task(
            self._create(run, start=start), context=context.detached()
        )
        key = request_id or run.run_id
        self._creating[key] = task
        task.add_done_callback(lambda _: self._creating.pop(key, None))
        return await asyncio.shield(task)

    def _name(self, run: Run) -> Run:
        """Returns a new run with its name and group, which nobody else can take from here on."""
        runs = [*self.register.runs(), *self._coming.values()]
        group = naming.join(runs, run.group, run.plan, claimed=self._claimed)
        suggestion = f"{group.name}-{run.plan.member}" if group is not None else run.plan.name
        name = naming.choose_name(runs, run.options.name, suggestion, claimed=self._claimed)
        run = self._coming[run.run_id] = replace(run, name=name, group=group)
        return run

    async def _create(self, run: Run, *, start: bool) -> Run:
        try:
            image = None
            if run.image_digest:
                image = await self._around.images.lease(run.run_id, run.image_digest)
            try:
                await self._around.store.save(run)
            except BaseException:
                await self._release(run)
                raise
            life = self._add(run, image)
        finally:
            del self._coming[run.run_id]
        if start:
            try:
                await life.start()
            except BaseException:  # a port that is taken: what was not accepted is not recorded
                await life.remove()
                raise
        return life.run

    def foreign_guest(self, plan: RunPlan) -> Architecture | None:
        """Returns the architecture of a plan's guest where that is not this machine's.

        Raises:
            PlatformUnsupported: no guest of this machine executes the image.
        """
        return self._around.foreign_guest(plan)

    async def start(self, text: str, *, request_id: str = "") -> Run:
        """Starts a run that was created or ended; the same request starts it once."""
        return await self.register.find(text).start(request_id=request_id)

    async def kill(self, text: str, *, signal: str = "KILL") -> Run:
        """Sends a signal to the workload."""
        life = self.register.find(text)
        number = signal_number(signal or "KILL")
        life.guest()
        life.signal(number)
        return life.run

    async def rename(self, text: str, name: str) -> Run:
        """Gives a run another name.

        Raises:
            NameTaken: another run has it.
            RequestInvalid: it cannot be a name.
        """
        life = self.register.find(text)
        names.check(name)
        if name == life.run.name:
            return life.run
        runs = [*self.register.runs(), *self._coming.values()]
        naming.choose_name(runs, name, "", claimed=self._claimed)
        self._claimed.add(name)
        try:
            return await life.rename(name)
        finally:
            self._claimed.discard(name)

    async def remove(self, text: str, *, force: bool = False, request_id: str = "") -> str:
        """Removes a run with its writable layer and log; returns its id.

        The same request removes it once, and has the same answer then.

        Raises:
            RunStateConflict: it is alive, and force is not asked for.
        """
        try:
            life = self.register.find(text)
        except RunUnknown:
            if run_id := self._around.answered.answer(request_id):
                return run_id
            raise
        await life.remove(force=force, request_id=request_id)
        return life.run.run_id

    async def prune_volumes(self, *, dry_run: bool = False) -> tuple[list[str], int]:
        """Removes the volumes that no recorded run names; returns names and freed bytes."""
        volumes = self._around.volumes
        needed = frozenset(
            mount.source for run in self.register.runs() for mount in named_mounts(run)
        )
        unused, freed = [], 0
        for name in volumes.unused(needed):
            with contextlib.suppress(VolumeUnknown, InUse):  # another client was faster
                used = (await volumes.get(name)).used_bytes
                freed += used if dry_run else await volumes.remove(name)
                unused.append(name)
        return unused, freed

    async def prune(self, *, dry_run: bool = False) -> tuple[list[str], int]:
        """Removes every run that has ended or was never started.

        Returns their ids and the bytes that became free.
        """
        idle = lifecycle.ENDED | {RunState.CREATED}
        ended = [life for life in self.register.lives() if life.run.state in idle]
        gone, freed = [], 0
        for life in ended:
            size = await self._around.store.size(life.run.run_id)
            if not dry_run:
                try:
                    await life.remove()
                except (RunUnknown, RunStateConflict):  # another client was faster
                    continue
            gone.append(life.run.run_id)
            freed += size
        return gone, freed

    async def usage(self, wanted: Iterable[str]) -> list[RunUsage]:
        """Returns what runs use, sorted by name; of all that are alive if none is named."""
        lives = [self.register.find(text) for text in wanted] or self.register.live()
        usages = await asyncio.gather(*(usage_of(life, self._around.store) for life in lives))
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
                default_rate=around.limits.disk_rate_bytes,
                architecture=around.foreign_guest(plan),
            )
            return await around.starts.warm(spec, guest_root(run, image, around.boundary.settings))
        finally:
            await self._release(run)

    async def snapshot(self, text: str, *, name: str, request_id: str) -> SavedRun:
        """Saves a live run, so that others go on from there; it goes on itself.

        Raises:
            NameTaken: another snapshot has the name.
            LnsError: what `snapshotting.take` and `SavedRuns.make` raise.
        """
        life = self.register.find(text)
        if not self.saved.is_known(request_id):
            snapshotting.check(life.run)
        return await self.saved.make(
            lambda draft: snapshotting.take(life, self._around, draft),
            name=name,
            suggestion=life.run.name,
            image_digest=life.run.image_digest,
            request_id=request_id,
        )

    # ---- inside ----

    def _add(self, run: Run, image: Image | None = None) -> RunLife:
        life = RunLife(
            run, self._around, peers=self.register.member, forget=self._forget, image=image
        )
        self.register.add(life)
        return life

    async def _forget(self, run: Run) -> None:
        """Removes all that is kept of a run."""
        await self._around.store.remove(run.run_id)
        await self._release(run)
        self.register.drop(run)

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
    if options.stop_signal:
        signal_number(options.stop_signal)
    if plan.stop_signal:
        signal_number(plan.stop_signal)
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
