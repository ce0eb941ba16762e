"""What passes through a bind of a run with a rate is no more than that in a second."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.vm_runner.file_server.pace import Pace
from services.vm_runner.file_server.wire import Opcode
from tests.support.fuse_client import ROOT, FuseClient, serving

RATE = 1 << 20


class Clock:
    """Time that passes by waiting alone."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def guest(clock: Clock, tmp_path: Path) -> Iterator[FuseClient]:
    (tmp_path / "source").write_bytes(b"s" * 4 * RATE)
    with serving(tmp_path, pace=Pace(RATE, clock=clock, sleep=clock.sleep)) as client:
        yield client


def test_without_a_rate_nothing_waits(clock: Clock) -> None:
    pace = Pace(0, clock=clock, sleep=clock.sleep)
    pace.pass_on(1 << 40)

    assert (pace.portion(1 << 40), clock.waits) == (1 << 40, [])


def test_reads_and_writes_count_together(guest: FuseClient, clock: Clock) -> None:
    began = clock.now
    source = guest.open(guest.walk("source").node)
    _, target = guest.create(b"target")
    step = 128 << 10
    for at in range(0, 2 * RATE, step):
        guest.write(target, guest.read(source, step, at), at)

    assert clock.now - began == pytest.approx(4.0, abs=0.2)  # two MiB read, two MiB written


def test_a_copy_on_the_host_counts_and_comes_in_portions(guest: FuseClient, clock: Clock) -> None:
    began = clock.now
    source = guest.open(guest.walk("source").node)
    entry, target = guest.create(b"target")
    copied = 0
    while copied < 4 * RATE:
        body = struct.pack("<7Q", source, copied, entry.node, target, copied, 4 * RATE, 0)
        (count,) = struct.unpack_from("<I", guest.ask(Opcode.COPY_FILE_RANGE, ROOT, body))
        assert 0 < count <= RATE
        copied += count

    assert clock.now - began == pytest.approx(4.0, abs=0.2)


def test_a_guest_that_was_idle_gets_a_second_s_worth_and_not_more(clock: Clock) -> None:
    pace = Pace(RATE, clock=clock, sleep=clock.sleep)
    clock.now += 3600

    pace.pass_on(RATE)
    assert clock.waits == []
    pace.pass_on(RATE)
    assert clock.waits == [pytest.approx(1.0)]


def test_no_request_holds_the_server_for_longer_than_ten_seconds(clock: Clock) -> None:
    Pace(1, clock=clock, sleep=clock.sleep).pass_on(1 << 20)

    assert clock.waits == [10.0]
