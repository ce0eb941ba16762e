"""The catalogue of the snapshots that users made of runs: their names, their room, their images.

They are never removed to make room: one more than fits is refused.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from services.chassis import context
from services.core.errors import (
    CapacityExhausted,
    LnsError,
    NameTaken,
    SavedMachineUnusable,
    SnapshotUnknown,
)
from services.vm_runner.ports import ImageSource
from services.vm_runner.records import names
from services.vm_runner.snapshots.saved_run import (
    SavedDraft,
    SavedRun,
    SavedRunStore,
    lease_of,
)

log = structlog.get_logger()

Take = Callable[[SavedDraft], Awaitable[SavedRun]]
"""Fills a draft; returns what it is of, its id and name left open."""


class SavedRuns:
    """The snapshots of runs of a node.

    Args:
        store: where they are kept.
        images: of which each keeps its run's.
        budget_bytes: what they may take on the disk together.
    """

    def __init__(self, store: SavedRunStore, images: ImageSource, *, budget_bytes: int) -> None:
        self._store = store
        self._images = images
        self.budget_bytes = budget_bytes
        self._known: dict[str, SavedRun] = {}
        self._claimed: set[str] = set()
        self._making: dict[str, asyncio.Task[SavedRun]] = {}
        self._releasing: asyncio.Future[list[None]] | None = None

    async def open(self) -> None:
        """Takes up the snapshots that are there; of those that are half, nothing is left."""
        found, halves = await self._store.load()
        self._known = {saved.snapshot_id: saved for saved in found}
        self._releasing = asyncio.gather(*(self._release(one) for one in halves))

    async def close(self) -> None:
        """Gives up those in the making: nothing is left of them, and their runs go on."""
        tasks: list[asyncio.Future[Any]] = list(self._making.values())
        if self._releasing is not None:
            tasks.append(self._releasing)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- what there is ----

    def all(self) -> tuple[SavedRun, ...]:
        """Returns every snapshot, by its name."""
        return tuple(sorted(self._known.values(), key=lambda saved: saved.name))

    @property
    def taken_bytes(self) -> int:
        """What they take on the disk."""
        return sum(saved.size_bytes for saved in self._known.values())

    def describe(self) -> str:
        """Returns how things stand, in a few words."""
        return (
            f"{len(self._known)} snapshots of runs take {self.taken_bytes >> 20} of "
            f"{self.budget_bytes >> 20} MiB"
        )

    def find(self, text: str) -> SavedRun:
        """Returns the snapshot of a name, an id or a unique prefix of one.

        Raises:
            SnapshotUnknown: there is none, or more than one.
        """
        for saved in self._known.values():
            if text in (saved.name, saved.snapshot_id):
                return saved
        found = [one for key, one in self._known.items() if text and key.startswith(text)]
        if len(found) != 1:
            why = "several ids begin with it" if found else "it does not exist"
            raise SnapshotUnknown(
                f"the snapshot {text} of a run cannot be chosen: {why}",
                hint="`lns snapshot ls` lists them; `lns snapshot RUN NAME` makes one",
            )
        return found[0]

    # ---- changes ----

    async def make(
        self, take: Take, *, name: str, suggestion: str, image_digest: str, request_id: str
    ) -> SavedRun:
        """Makes a snapshot, also where the caller leaves; the same request makes it once.

        Args:
            take: fills the draft.
            name: that a user chose; may be empty.
            suggestion: by which a name is chosen then.
            image_digest: digest of the run's image; may be empty.
            request_id: of the client; may be empty.

        Raises:
            NameTaken: another snapshot has the name.
            RequestInvalid: it cannot be a name.
            CapacityExhausted: the snapshots that exist take all the room there is for them.
            LnsError: it cannot be made; nothing is left of it.
        """
        if known := self._of_request(request_id):
            return known
        making = self._making.get(request_id)
        if making is None:
            self._check_room()
            name = self._claim(name, suggestion)
            key = request_id or secrets.token_hex(16)
            making = asyncio.get_running_loop().create_task(
                self._make(take, name, image_digest, request_id), context=context.detached()
            )
            self._making[key] = making
            making.add_done_callback(lambda task: self._made(key, name, task))
        return await asyncio.shield(making)

    def is_known(self, request_id: str) -> bool:
        """Returns whether a request has made a snapshot, or is making it."""
        return request_id in self._making or self._of_request(request_id) is not None

    def _of_request(self, request_id: str) -> SavedRun | None:
        known = (saved for saved in self._known.values() if saved.request_id == request_id)
        return next(known, None) if request_id else None

    def _claim(self, name: str, suggestion: str) -> str:
        taken = {saved.name for saved in self._known.values()} | self._claimed
        if not name:
            name = names.choose(suggestion, taken=taken)
        names.check(name, of="snapshot")
        if name in taken:
            raise NameTaken(
                f"another snapshot has the name {name}",
                hint=f"choose another name, or `lns snapshot rm {name}`",
                metadata={"name": name},
            )
        self._claimed.add(name)
        return name

    def _check_room(self) -> None:
        if self.taken_bytes >= self.budget_bytes:
            raise CapacityExhausted(
                f"the snapshots of runs take {self.taken_bytes >> 20} MiB, and may take "
                f"{self.budget_bytes >> 20} MiB together",
                hint="`lns snapshot rm` those that are not needed, or raise vm_runner.saved_disk",
            )

    async def _make(self, take: Take, name: str, image_digest: str, request_id: str) -> SavedRun:
        snapshot_id = secrets.token_hex(16)
        if image_digest:
            await self._images.lease(lease_of(snapshot_id), image_digest)
        try:
            async with self._store.draft(snapshot_id) as draft:
                taken = await take(draft)
                saved = await draft.keep(
                    replace(taken, snapshot_id=snapshot_id, name=name, request_id=request_id)
                )
        except BaseException:
            await self._release(snapshot_id)
            raise
        self._known[snapshot_id] = saved
        log.info("run_saved", name=name, run_id=saved.origin.run_id, bytes=saved.size_bytes)
        return saved

    def _made(self, key: str, name: str, task: asyncio.Task[SavedRun]) -> None:
        self._making.pop(key, None)
        self._claimed.discard(name)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("run_not_saved", name=name, error=str(error))

    async def give(self, saved: SavedRun, run_directory: Path) -> None:
        """Gives a run a writable layer and an authority of its own, equal to the snapshot's.

        Raises:
            SnapshotUnknown: it was removed meanwhile.
            CapacityExhausted: the disk is full.
        """
        await self._store.give(saved, run_directory)

    async def remove(self, saved: SavedRun) -> None:
        """Removes a snapshot; runs that go on from it do so."""
        if self._known.pop(saved.snapshot_id, None) is not None:
            await self._store.remove(saved)
            await self._release(saved.snapshot_id)

    async def _release(self, snapshot_id: str) -> None:
        """Gives up the lease of a snapshot; one of a machine without an image has none."""
        try:
            await self._images.release(lease_of(snapshot_id))
        except LnsError as error:  # the image is kept longer than it needs to be, no more
            log.warning("lease_not_released", snapshot=snapshot_id, message=error.message)


def check_same(saved: SavedRun, fingerprint: str) -> None:
    """Checks that a machine can go on from a snapshot.

    Raises:
        SavedMachineUnusable: the snapshot is of another VMM, kernel or agent.
    """
    if saved.fingerprint != fingerprint:
        raise SavedMachineUnusable(
            f"the snapshot {saved.name} is of another VMM or kernel, so that no run can go on "
            "from it",
            hint="put back the QEMU, kernel and lns it was made with; or make it anew",
        )
