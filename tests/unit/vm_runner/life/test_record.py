import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from services.core.errors import CapacityExhausted, RunStateConflict, RunUnknown
from services.vm_runner.life.record import RunRecord
from services.vm_runner.records import lifecycle
from services.vm_runner.records.runs import Run, RunState
from tests.support.eventually import eventually
from tests.support.runs import a_run


class Store:
    """A store that waits in each save, and may be full."""

    def __init__(self) -> None:
        self.saved: list[Run] = []
        self.full = False

    async def save(self, run: Run) -> None:
        await asyncio.sleep(0)
        if self.full:
            raise CapacityExhausted("no room")
        self.saved.append(run)

    def directory(self, run_id: str) -> Path:
        return Path("/runs") / run_id


def a_record(store: Store, *, is_readable: bool = True) -> RunRecord:
    return RunRecord(a_run(), store, is_readable=is_readable, retry_seconds=0.001)  # type: ignore[arg-type]  # what it needs


def sequences(record: RunRecord) -> list[int]:
    return [event.sequence for event in record.history._events]


async def test_of_two_starts_at_once_one_is_refused() -> None:
    record = a_record(Store())
    outcomes = await asyncio.gather(
        *(record.transition(lifecycle.starting) for _ in range(2)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [Run, RunStateConflict]
    assert record.run.boot == 1


async def test_changes_and_notices_are_published_in_the_order_of_their_sequence() -> None:
    record = a_record(Store())
    await asyncio.gather(
        record.transition(lifecycle.starting, notices=["a secret is hidden", "a link is followed"]),
        record.notice("a bind was lost"),
        record.transition(lambda run: replace(run, name="other")),
    )
    assert sequences(record) == list(range(1, 7))
    assert (record.run.name, record.run.state) == ("other", RunState.STARTING)


async def test_a_wish_that_cannot_be_recorded_has_not_happened() -> None:
    store = Store()
    record = a_record(store)
    store.full = True
    with pytest.raises(CapacityExhausted):
        await record.transition(lifecycle.starting)
    assert record.run.state is RunState.CREATED
    assert sequences(record) == [1]


async def test_a_fact_holds_and_is_recorded_when_space_is_free() -> None:
    store = Store()
    record = a_record(store)
    store.full = True
    await record.transition(lifecycle.starting, happened=True)
    assert record.run.state is RunState.STARTING
    store.full = False
    await eventually(lambda: bool(store.saved))
    assert store.saved[-1] == record.run
    await record.close()


async def test_a_change_is_whole_although_the_one_who_asked_for_it_leaves() -> None:
    store = Store()
    record = a_record(store)
    asking = asyncio.create_task(record.transition(lifecycle.starting))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert (record.run.state, len(store.saved)) == (RunState.STARTING, 1)


async def test_a_record_that_could_not_be_read_is_never_written() -> None:
    store = Store()
    record = a_record(store, is_readable=False)
    await record.notice("something happened")
    assert store.saved == []


async def test_a_removed_run_changes_no_more_and_ends_every_wait() -> None:
    record = a_record(Store())
    waiting = asyncio.create_task(record.wait_until(lambda run: run.state is RunState.EXITED))
    await asyncio.sleep(0)

    async def gone() -> None:
        await asyncio.sleep(0)

    await record.remove(gone)
    await waiting
    with pytest.raises(RunUnknown):
        await record.transition(lifecycle.starting)


async def test_a_run_that_could_not_be_removed_still_exists() -> None:
    record = a_record(Store())

    async def fails() -> None:
        raise OSError("the disk is broken")

    with pytest.raises(OSError, match="broken"):
        await record.remove(fails)
    assert not record.is_removed
    await record.transition(lifecycle.starting)
