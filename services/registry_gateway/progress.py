"""How far transfers are: counters that threads write and streams read.

A transfer owns one `Meter`; every call that waits for the transfer has it on its `Board`. A stream
looks at its board now and then and sends what changed, so a slow reader costs no memory and fast
transfers no messages.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeVar

from services.chassis.tasks import settle
from services.core.digest import Digest
from services.core.errors import DeadlineExceeded

T = TypeVar("T")

PERIOD_SECONDS: Final = 0.1


class Stage(Enum):
    """What happens to a blob."""

    WAITING = auto()
    DOWNLOADING = auto()
    UPLOADING = auto()
    RETRYING = auto()
    EXISTS = auto()
    MOUNTED = auto()
    DONE = auto()


class Stop(threading.Event):
    """Tells a thread to stop, and wakes it where it waits for the network."""

    def __init__(self) -> None:
        super().__init__()
        self._wakers: list[Callable[[], None]] = []
        self._guard = threading.Lock()

    def set(self) -> None:
        """Stops the thread: at its next check, or out of the wait that it is in."""
        super().set()
        with self._guard:
            wakers = list(self._wakers)
        for wake in wakers:
            wake()

    @contextlib.contextmanager
    def waking(self, wake: Callable[[], None]) -> Iterator[None]:
        """Has `wake` called when the stop comes while the block runs; it must not block."""
        with self._guard:
            self._wakers.append(wake)
        try:
            if self.is_set():
                wake()
            yield
        finally:
            with self._guard:
                self._wakers.remove(wake)

    def check(self) -> None:
        """Raises DeadlineExceeded once the stop was set; nobody waits for the answer then."""
        if self.is_set():
            raise DeadlineExceeded("the transfer was cancelled")

    def watched(self, pieces: Iterable[T]) -> Iterator[T]:
        """The same pieces, until the stop; raises as `check` does."""
        for piece in pieces:
            self.check()
            yield piece


class Meter:
    """How far the transfer of one blob is; written by one thread at a time, read by any.

    Attributes:
        digest: the blob.
        total: its size in bytes.
        done: bytes that are where they belong.
        moved: bytes that crossed the network for it.
        stage: what happens to it.
        stop: ends the transfer.
    """

    __slots__ = ("digest", "done", "moved", "stage", "stop", "total")

    def __init__(self, digest: Digest, total: int) -> None:
        self.digest = digest
        self.total = total
        self.done = 0
        self.moved = 0
        self.stage = Stage.WAITING
        self.stop = Stop()

    def advance(self, count: int) -> None:
        """Counts bytes that crossed the network and are where they belong."""
        self.moved += count
        self.done += count

    def finish(self, stage: Stage) -> None:
        """Ends the transfer at its full size."""
        self.done = self.total
        self.stage = stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A meter at one moment."""

    digest: Digest
    stage: Stage
    done: int
    total: int


class Board:
    """The meters that one call waits for."""

    def __init__(self) -> None:
        self._meters: dict[Digest, Meter] = {}
        self._shown: dict[Digest, Snapshot] = {}
        self._warnings: dict[str, None] = {}

    def add(self, meter: Meter) -> None:
        """Shows a meter from now on, in the place of an earlier one of the same blob."""
        self._meters[meter.digest] = meter

    def changes(self) -> list[Snapshot]:
        """Returns the meters that changed since the last call."""
        changed = []
        for meter in list(self._meters.values()):
            now = Snapshot(
                digest=meter.digest, stage=meter.stage, done=meter.done, total=meter.total
            )
            if self._shown.get(meter.digest) != now:
                self._shown[meter.digest] = now
                changed.append(now)
        return changed

    def warn(self, text: str) -> None:
        """Keeps something that the caller should know although the work went on."""
        self._warnings[text] = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What `warn` was given, each once, in order."""
        return tuple(self._warnings)

    @property
    def moved(self) -> int:
        """Bytes that crossed the network, in all."""
        return sum(meter.moved for meter in self._meters.values())

    @property
    def existing(self) -> int:
        """How many blobs existed already."""
        return sum(meter.stage is Stage.EXISTS for meter in self._meters.values())


async def follow(
    work: Coroutine[None, None, T], board: Board, *, period: float = PERIOD_SECONDS
) -> AsyncGenerator[Snapshot | T, None]:
    """Runs `work` and yields what changes on its board, then what it returns.

    Closing the iterator cancels the work and waits for its end. Raises what the work raises.
    """
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=period)
            for snapshot in board.changes():
                yield snapshot
        yield task.result()
    finally:
        if not task.done():
            task.cancel()
            await settle(task)
