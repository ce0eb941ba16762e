"""A profile on demand: what a process does, for those who may know it."""

import asyncio
import contextlib
import select
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from lns.process.v1 import process_service_pb2 as pb
from lns.process.v1 import process_service_pb2_grpc as rpc

from services.chassis import sampling
from services.chassis.channel import open_channel
from services.chassis.sampling import sample
from services.chassis.server import running_server
from services.chassis.settings import PeerSettings, ServerSettings
from services.core.errors import CallerDenied, DeadlineExceeded, InUse, RequestInvalid


@contextlib.asynccontextmanager
async def served(address: str) -> AsyncIterator["rpc.ProcessServiceAsyncStub"]:
    async with (
        running_server(
            ServerSettings(listen=(address,), grace=0.2, plaintext_tcp=True), []
        ) as addresses,
        open_channel(PeerSettings(target=addresses[0])) as channel,
    ):
        yield rpc.ProcessServiceStub(channel)


@contextlib.contextmanager
def busy() -> Iterator[None]:
    """A thread that works the whole time in a function of this module, and one that waits."""
    stop = threading.Event()
    threads = [threading.Thread(target=one, args=(stop,)) for one in (turning, resting)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def resting(stop: threading.Event) -> None:
    select.select([], [], [], 0.2)  # in C, called from here
    stop.wait()


def turning(stop: threading.Event) -> None:
    while not stop.is_set():
        sum(range(1000))


async def test_a_profile_says_where_a_thread_was_found_and_leaves_waiting_ones_out(
    short_directory: Path,
) -> None:
    async with served(f"unix:{short_directory}/s.sock") as stub:
        with busy():
            profile = await stub.TakeProfile(pb.TakeProfileRequest(seconds=1))

    seen = Counter[str]()
    for stack in profile.stacks:
        seen[stack.frames[-1]] += stack.samples
    assert profile.looks > 0
    assert seen[f"{__name__}:turning"] > 2
    # It uses the processor when it starts and when it wakes, which a look may meet.
    assert seen[f"{__name__}:resting"] <= 2


@pytest.mark.parametrize("seconds", [0, 61, 4_000_000_000])
async def test_it_takes_no_longer_than_a_minute(short_directory: Path, seconds: int) -> None:
    async with served(f"unix:{short_directory}/s.sock") as stub:
        with pytest.raises(RequestInvalid, match="1 to 60"):
            await stub.TakeProfile(pb.TakeProfileRequest(seconds=seconds))


async def test_one_is_taken_at_a_time(short_directory: Path) -> None:
    async with served(f"unix:{short_directory}/s.sock") as stub:
        ended = await asyncio.gather(
            *(stub.TakeProfile(pb.TakeProfileRequest(seconds=3)) for _ in range(2)),
            return_exceptions=True,
        )

    assert {type(one) for one in ended} == {pb.TakeProfileResponse, InUse}


async def test_one_whose_caller_leaves_gives_way_to_the_next(short_directory: Path) -> None:
    async with served(f"unix:{short_directory}/s.sock") as stub:
        with pytest.raises(DeadlineExceeded):
            await stub.TakeProfile(pb.TakeProfileRequest(seconds=60), timeout=0.5)
        next_one = None
        while next_one is None:  # until the server has learned that the caller has left
            with contextlib.suppress(InUse):
                next_one = await stub.TakeProfile(pb.TakeProfileRequest(seconds=1))

    assert next_one.looks > 0


async def test_over_tcp_it_is_for_those_whom_rules_permit(short_directory: Path) -> None:
    async with served("127.0.0.1:0") as stub:
        with pytest.raises(CallerDenied):
            await stub.TakeProfile(pb.TakeProfileRequest(seconds=1))


def test_stacks_are_bounded_in_depth_and_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_DEEPEST", 2)
    monkeypatch.setattr(sampling, "_STACKS_MOST", 0)

    with busy():
        profile = sample(0.5, stop=threading.Event())

    assert {len(stack) for stack, _ in profile.stacks} == {1}
