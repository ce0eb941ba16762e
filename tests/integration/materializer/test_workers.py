"""Worker processes: killed, cancelled, replaced."""

import asyncio
import os
import random
import signal
from pathlib import Path

import pytest

from services.core.digest import Digest
from services.core.errors import Internal, LayerUnsafe
from services.materializer.adapters.workers import Ground, Workers
from services.materializer.layers.limits import LayerLimits
from tests.support.tars import archive, entry


def layer_job(directory: Path, data: bytes) -> dict[str, object]:
    blob = directory / "blob"
    blob.write_bytes(data)
    target = directory / "layer"
    target.mkdir()
    limits = {name: getattr(LayerLimits(), name) for name in LayerLimits.__slots__}
    return {
        "blob": {"digest": Digest.of(data).hex, "path": str(blob)},
        "directory": str(target),
        "diff_id": Digest.of(data).hex,
        "limits": limits,
    }


def children() -> set[int]:
    """The processes that this one has started and that live."""
    text = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii")
    return {int(pid) for pid in text.split()}


async def test_errors_of_jobs_are_the_same_errors_here(tmp_path: Path) -> None:
    async with Workers(1, Ground(write=[tmp_path])) as workers:
        with pytest.raises(LayerUnsafe) as caught:
            await workers.run("layer", layer_job(tmp_path, archive(entry(b"../x"))))

    assert caught.value.metadata == {"entry": "../x"}


async def test_a_worker_that_dies_fails_its_job_and_is_replaced(tmp_path: Path) -> None:
    before = children()
    async with Workers(1, Ground(write=[tmp_path])) as workers:
        (worker,) = children() - before
        os.kill(worker, signal.SIGKILL)

        with pytest.raises(Internal):
            await workers.run("layer", layer_job(tmp_path, archive(entry(b"../x"))))
        with pytest.raises(LayerUnsafe):
            (tmp_path / "again").mkdir()
            await workers.run("layer", layer_job(tmp_path / "again", archive(entry(b"../x"))))

    assert children() == before


async def test_a_cancelled_job_ends_its_worker_before_its_caller_goes_on(tmp_path: Path) -> None:
    before = children()
    data = archive(entry(b"f", random.Random(1).randbytes(64 << 20)))  # noqa: S311 - test data
    async with Workers(1, Ground(write=[tmp_path])) as workers:
        begun = asyncio.Event()
        request = layer_job(tmp_path, data)
        job = asyncio.create_task(workers.run("layer", request, lambda _: begun.set()))
        await begun.wait()

        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job

        assert children() == before


async def test_no_more_jobs_run_at_a_time_than_there_are_workers(tmp_path: Path) -> None:
    before = children()
    async with Workers(2, Ground(write=[tmp_path])) as workers:
        jobs = []
        for number in range(6):
            (tmp_path / str(number)).mkdir()
            request = layer_job(tmp_path / str(number), archive(entry(b"../x")))
            jobs.append(workers.run("layer", request))
        results = await asyncio.gather(*jobs, return_exceptions=True)

        assert len(children() - before) <= 2

    assert all(isinstance(one, LayerUnsafe) for one in results)
