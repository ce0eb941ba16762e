"""The task that lives with a run's microVM, through restarts by its policy to its end.

It takes the run's turn only where it touches what the run holds, and looks then whether it is still
the task of the run's present life. Who has the turn never waits for the task, only for the end of
its microVM.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from services.chassis import context
from services.chassis.tasks import first_error
from services.core.errors import Internal, LnsError, RunStateConflict, RunUnknown
from services.vm_runner.life import saved_state
from services.vm_runner.life.boot import Boot, BootedRun, MachineLost
from services.vm_runner.life.forking import Fork
from services.vm_runner.life.guest_plan import machine_spec
from services.vm_runner.life.holdings import Holdings
from services.vm_runner.life.origins import Adopted, Origin, Start, is_fork
from services.vm_runner.life.record import RunRecord
from services.vm_runner.life.surroundings import Surroundings
from services.vm_runner.machines import Machine, MachineSpec, SavedMachine
from services.vm_runner.ports import Image
from services.vm_runner.records import lifecycle
from services.vm_runner.records.runs import Failure, Run, RunState

log = structlog.get_logger()

_RESTART_MOST = 60.0


class Living:
    """The present life of one run.

    Args:
        owner: the run.
        record: of it.
        surroundings: what every run is given.
        holdings: what it has while it lives.
        turn: is taken by whoever does something with the run.
        on_over: awaited, in turn, when the run is over and holds nothing any more.
        image: that was leased for it just now.
    """

    def __init__(
        self,
        owner: BootedRun,
        record: RunRecord,
        surroundings: Surroundings,
        *,
        holdings: Holdings,
        turn: asyncio.Lock,
        on_over: Callable[[], Awaitable[None]],
        image: Image | None,
    ) -> None:
        self.boot: Boot | None = None
        self.machine_gone = asyncio.Event()
        self.machine_gone.set()
        self._owner = owner
        self._record = record
        self._around = surroundings
        self._holdings = holdings
        self._turn = turn
        self._on_over = on_over
        self._leased = image
        self._task: asyncio.Task[None] | None = None
        self._given_up = asyncio.Event()

    # ---- for operations, which have the turn ----

    async def begin(self, *, restarted: bool, request_id: str = "") -> None:
        """Takes what a live run has, and records that it starts; or nothing of both.

        Raises:
            LnsError: what `Holdings.take` raises; or it cannot be recorded.
        """
        run = lifecycle.starting(self._record.run, restarted=restarted)
        held_before = self._holdings.are_held
        remarks = [] if held_before else await self._holdings.take(run)
        try:
            await self._record.transition(
                lambda run: replace(
                    lifecycle.starting(run, restarted=restarted),
                    ports=self._holdings.ports.mappings,
                    start_request_id=request_id or run.start_request_id,
                ),
                notices=remarks,
            )
        except BaseException:
            if not held_before:
                await self._holdings.let_go(run)
            raise

    def spawn(self, machine: Machine | None) -> None:
        """Lives with a microVM that was found, or with one that is booted."""
        boot = self._new_boot(machine)
        self._given_up.clear()
        self._task = self._detached(self._live(boot))

    def restart_by_policy(self) -> None:
        """Starts an ended run again as its policy says; an earlier service did not come to it."""
        self._task = self._detached(self._live(None))

    def finish(self, machine: Machine) -> None:
        """Ends a microVM that an earlier process left behind after it had recorded the end."""
        self.machine_gone.clear()
        self._task = self._detached(self._finish(machine))

    def watch(self, machine: Machine) -> None:
        """Sees only the end of a microVM: its run's record cannot be read."""
        self._new_boot(machine).machine = machine
        self._task = self._detached(self._see_end(machine))

    async def end_unread(self) -> None:
        """Ends the microVM of a run whose record cannot be read: asked to, then by force."""
        if self.boot is not None and self.boot.machine is not None:
            await self.boot.finish(self.boot.machine)
        await self.machine_gone.wait()
        await self._without_machine()

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return self._around.store.directory(self._record.run.run_id)

    async def save(self, machine: Machine) -> None:
        """Saves a machine in the run's directory; it is held from then on.

        Raises:
            LnsError: it cannot be saved.
        """
        fingerprint = await self._around.hypervisor.fingerprint(await self.spec())
        await machine.save_whole(saved_state.state_file(self.directory))
        await saved_state.keep(self.directory, fingerprint)

    async def revive(self) -> None:
        """Has the machine of a suspended run go on where it was saved.

        Raises:
            SavedMachineUnusable: it cannot be resumed on this host any more.
            LnsError: the VMM does not start, or that it runs cannot be recorded.
        """
        await self.machine_gone.wait()
        spec = await self.spec()
        await saved_state.check(self.directory, await self._around.hypervisor.fingerprint(spec))
        saved = SavedMachine(memory=None, state=saved_state.state_file(self.directory))
        machine = await self._around.hypervisor.resume(spec, saved, is_held=True)
        try:
            await self._record.transition(
                lambda run: replace(
                    lifecycle.resumed(run), vmm_pid=machine.pid, accelerator=machine.accelerator
                )
            )
        except BaseException:
            await machine.kill()
            raise
        with contextlib.suppress(LnsError):  # whoever lives with it finds that out
            await machine.resume()
        await saved_state.remove(self.directory)
        self.spawn(machine)

    async def spec(self) -> MachineSpec:
        """Returns the run's machine.

        Raises:
            LnsError: its image cannot be had.
        """
        run = self._record.run
        return machine_spec(
            run,
            await self._image(),
            directory=self.directory,
            volumes=self._around.volumes.disks(run),
            default_disk=self._around.limits.disk_bytes,
            architecture=self._around.foreign_guest(run.plan),
            default_rate=self._around.limits.disk_rate_bytes,
        )

    async def end_suspended(self) -> None:
        """Ends a suspended run: what is saved of its machine is of no use any more."""
        await self._record.transition(lambda run: lifecycle.ended_suspended(run, now=_now()))
        await saved_state.remove(self.directory)
        await self._wind_up()

    async def settle(self) -> None:
        """Waits for the microVM of an ended run, which may still be writing back; nothing is left.

        The task of the run's last life comes to nothing from here on.
        """
        await self.give_up_restart()
        await self.machine_gone.wait()
        self._task = self.boot = None
        self._given_up.set()
        await self._holdings.let_go(self._record.run)

    async def give_up_restart(self) -> None:
        """Keeps an ended run from being started again by its policy."""
        if lifecycle.wants_restart(self._record.run):
            await self._record.transition(
                lambda run: replace(run, stop_requested=True), happened=True
            )
            self._given_up.set()

    async def cut_off(self, boot: int) -> None:
        """Ends the microVM of a boot by force, whoever has the turn; its end is then recorded."""
        if self.boot is not None and self._record.run.boot == boot:
            await self.boot.cut_off()

    async def close(self) -> None:
        """Leaves a microVM to the next service."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def is_at_work(self) -> bool:
        """Whether something of the life is still to come."""
        return self._task is not None and not self._task.done()

    # ---- the task ----

    def _detached(self, life: Awaitable[None]) -> asyncio.Task[None]:
        async def lived() -> None:
            with structlog.contextvars.bound_contextvars(run_id=self._record.run.run_id):
                await life

        # A run outlives the call that started it, and so does what it asks of others.
        return asyncio.get_running_loop().create_task(lived(), context=context.detached())

    def _new_boot(self, machine: Machine | None = None) -> Boot:
        self._owner.log.begin()
        self.machine_gone.clear()
        self.boot = Boot(self._owner, self._around, self._origin(machine))
        return self.boot

    def _origin(self, machine: Machine | None) -> Origin:
        if machine is not None:
            return Adopted(machine, self._around, self._image)
        if is_fork(self._record.run):
            return Fork(self._around, self._image, log=self._owner.log, notice=self._record.notice)
        return Start(self._around, self._image, notice=self._record.notice)

    async def _image(self) -> Image | None:
        """Returns the run's image: as it was leased for this start, or leased again."""
        run = self._record.run
        image, self._leased = self._leased, None
        if image is not None or not run.image_digest:
            return image
        return await self._around.images.lease(run.run_id, run.image_digest)

    async def _live(self, boot: Boot | None) -> None:
        """Lives from a boot to the end after which no restart follows.

        Nothing that goes wrong here is lost: it is a failure of the run.
        """
        try:
            while True:
                if boot is not None:
                    await self._live_once(boot)
                self.machine_gone.set()
                boot = await self._restarted()
                if boot is None:
                    return
        except Exception as error:
            log.exception("run_failed")
            await self._fail(_defect(error))
            self.machine_gone.set()
            async with self._turn:
                if self._is_current():
                    await self.give_up_restart()
                    await self._wind_up()

    async def _live_once(self, boot: Boot) -> None:
        """Lives from a start to its end, which is recorded whatever happens."""
        tried = 1
        while (error := await _boot_once(boot)) is not None:
            run = self._record.run
            if not isinstance(error, MachineLost) or not lifecycle.boots_again(run, tried=tried):
                await self._fail(error)
                return
            tried += 1
            log.warning("boot_tried_again", message=error.message)
            boot = self._new_boot()
            await self._record.notice(
                f"{error.message}; its workload had not begun: trying once more"
            )
            if self._record.run.stop_requested:  # whoever stopped it has cut the other boot off
                await boot.cut_off()

    async def _fail(self, error: LnsError) -> None:
        log.warning("run_failed", reason=error.reason, message=error.message)
        with contextlib.suppress(RunStateConflict, RunUnknown):  # it has ended before
            await self._record.transition(
                lambda run: lifecycle.failed(run, Failure.of(error), now=_now()), happened=True
            )

    def _is_current(self) -> bool:
        """Whether the task that asks is that of the run's present life."""
        return self._task is asyncio.current_task()

    async def _restarted(self) -> Boot | None:
        """Sees to what follows an end: a restart by the policy, or that nothing is left."""
        tries = 0
        while True:
            async with self._turn:
                if not self._is_current():
                    return None
                if self._record.run.state is RunState.SUSPENDED:  # it keeps what it has
                    self.boot = None
                    return None
                if not lifecycle.wants_restart(self._record.run):
                    await self._wind_up()
                    return None
                self._given_up.clear()
            await self._wait_to_restart(tries)
            async with self._turn:
                if not self._is_current() or not lifecycle.wants_restart(self._record.run):
                    continue
                try:
                    await self.begin(restarted=True)
                except LnsError as error:
                    tries += 1
                    log.warning("run_not_restarted", message=error.message)
                    await self._record.notice(f"it is not started again yet: {error.message}")
                    continue
                return self._new_boot()

    async def _wait_to_restart(self, tries: int) -> None:
        """Waits as long as the policy wants, and longer after tries that failed."""
        delay = min(_RESTART_MOST, lifecycle.restart_delay(self._record.run) * 2**tries)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._given_up.wait()

    async def _wind_up(self) -> None:
        """Leaves nothing of a life that is over."""
        self.boot = None
        self._owner.log.close()
        await self._holdings.let_go(self._record.run)
        await self._on_over()

    async def _finish(self, machine: Machine) -> None:
        try:
            origin = Adopted(machine, self._around, self._image)
            await Boot(self._owner, self._around, origin).finish(machine)
        finally:
            self.machine_gone.set()
        await self._live(None)

    async def _see_end(self, machine: Machine) -> None:
        await machine.wait()
        self.machine_gone.set()
        async with self._turn:
            if self._is_current():
                await self._without_machine()

    async def _without_machine(self) -> None:
        self.boot = None
        self._owner.log.close()
        await self._holdings.let_go(self._record.run)
        await self._record.transition(_without_machine, happened=True)


async def _boot_once(boot: Boot) -> LnsError | None:
    """Lives through one boot; returns why it failed."""
    failure: LnsError | None = None
    try:
        await boot.run()
    except* LnsError as errors:
        failure = first_error(errors)
    except* Exception as errors:
        log.exception("run_failed")
        failure = _defect(errors)
    return failure


def _without_machine(run: Run) -> Run:
    return replace(run, vmm_pid=0, ports=())


def _defect(error: BaseException) -> LnsError:
    failure = Internal("a defect of lns ended the run; its log says more")
    failure.__cause__ = error
    return failure


def _now() -> datetime:
    return datetime.now(UTC)
