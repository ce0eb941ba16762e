"""The host's end of the channel and the real guest agent, run as an ordinary process."""

import asyncio
import hashlib
import os
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from services.core.errors import GuestUnreachable
from services.vm_runner.channel.byte_channel import ByteChannel
from services.vm_runner.channel.events import ProcessPhase
from services.vm_runner.channel.requests import Builtin, GuestConfig, ProcessSpec, Rlimit
from services.vm_runner.channel.session import GuestSession, open_session
from services.vm_runner.channel.wire import FRAME_MAX, SYNC_MARK
from services.vm_runner.machines import MachineSpec
from tests.fakes.hypervisor import FakeHost, FakeHypervisor, FakeMachine
from tests.support.guest_agent import ENV, agent_session, require_agent, running_agent

pytestmark = pytest.mark.integration


@pytest.fixture
async def session() -> AsyncIterator[GuestSession]:
    async with agent_session() as session:
        yield session


def shell(script: str, *, streams: int = 21, terminal: bool = False) -> ProcessSpec:
    """A shell with its streams at `streams` and the number behind it."""
    return ProcessSpec(
        argv=("sh", "-c", script),
        env=ENV,
        stdio_stream=streams,
        stderr_stream=0 if terminal else streams + 1,
        terminal=(24, 80) if terminal else None,
    )


async def everything(session: GuestSession, stream_id: int) -> bytes:
    return b"".join([chunk async for chunk in session.stream(stream_id).read_chunks()])


async def test_the_agent_answers_a_hello(session: GuestSession) -> None:
    assert session.welcome is not None
    assert session.welcome.version == 1
    assert not session.welcome.configured


async def test_a_process_gets_what_it_is_sent_and_both_outputs_come_back(
    session: GuestSession,
) -> None:
    process = session.start_process(9, shell("cat; echo oops >&2; exit 3"))
    await session.stream(21).write(b"in\x00\xff")
    session.stream(21).finish()

    assert await everything(session, 21) == b"in\x00\xff"
    assert await everything(session, 22) == b"oops\n"
    assert (await process.wait_ended()).exit_code == 3


@pytest.mark.parametrize(
    ("argv", "stage", "errno"),
    [
        (("no-such-program",), "exec", 2),
        (("/etc/passwd",), "exec", 13),
        (("/no/such/program",), "exec", 2),
    ],
)
async def test_a_program_that_cannot_run_is_reported_with_the_reason(
    session: GuestSession, argv: tuple[str, ...], stage: str, errno: int
) -> None:
    process = session.start_process(9, ProcessSpec(argv=argv, env=ENV, stdio_stream=21))
    state = await process.wait_ended()

    assert (state.phase, state.stage, state.errno) == (ProcessPhase.FAILED, stage, errno)
    assert await everything(session, 21) == b""


async def test_a_signal_ends_a_process_and_is_named(session: GuestSession) -> None:
    process = session.start_process(9, shell("sleep 60"))
    await process.wait_started()
    process.signal(15)

    assert (await process.wait_ended()).signal == 15


async def test_a_process_that_is_started_twice_runs_once(session: GuestSession) -> None:
    spec = shell("echo once")
    process = session.start_process(9, spec)
    session.start_process(9, spec, open_streams=False)

    assert await everything(session, 21) == b"once\n"
    await process.wait_ended()


async def test_a_terminal_has_a_size_an_echo_and_an_end(session: GuestSession) -> None:
    process = session.start_process(
        9, shell("tty; stty size; read line; stty size; echo got $line", terminal=True)
    )
    stream = session.stream(21)
    output = b""
    while output.count(b"\n") < 2:
        data, _ = await stream.receive()
        stream.acknowledge(len(data))
        output += data
    process.resize(rows=50, columns=132)
    await stream.write(b"word\n")
    output += await everything(session, 21)

    assert output.startswith(b"/dev/pts/")
    assert output.endswith(b"24 80\r\nword\r\n50 132\r\ngot word\r\n")
    assert (await process.wait_ended()).exit_code == 0


async def test_control_c_on_a_terminal_is_a_signal(session: GuestSession) -> None:
    process = session.start_process(9, shell("echo ready; exec sleep 60", terminal=True))
    stream = session.stream(21)
    data, _ = await stream.receive()
    assert data == b"ready\r\n"
    await stream.write(b"\x03")

    assert (await process.wait_ended()).signal == 2


async def test_limits_mask_and_score_are_set(session: GuestSession) -> None:
    spec = ProcessSpec(
        argv=("sh", "-c", "ulimit -n; umask; cat /proc/self/oom_score_adj; pwd"),
        env=ENV,
        stdio_stream=21,
        workdir="/usr",
        umask=0o027,
        oom_score=500,
        rlimits=(Rlimit(resource=7, soft=123, hard=456),),
    )
    session.start_process(9, spec)

    assert await everything(session, 21) == b"123\n0027\n500\n/usr\n"


async def test_a_hundred_megabytes_come_through_intact(session: GuestSession) -> None:
    session.start_process(9, shell("head -c 100000000 /dev/zero"))
    digest, size = hashlib.sha256(), 0
    async for chunk in session.stream(21).read_chunks():
        digest.update(chunk)
        size += len(chunk)

    assert size == 100_000_000
    assert digest.hexdigest() == hashlib.sha256(bytes(100_000_000)).hexdigest()


async def test_a_reader_that_stalls_stops_its_own_stream_only(session: GuestSession) -> None:
    session.start_process(9, shell("yes", streams=21))
    session.start_process(10, shell("echo through", streams=31))

    assert await everything(session, 31) == b"through\n"
    stalled, _ = await session.stream(21).receive()
    assert 0 < len(stalled) <= 256 * 1024


async def test_a_writer_waits_for_a_process_that_does_not_read(session: GuestSession) -> None:
    process = session.start_process(9, shell("sleep 60"))
    writing = asyncio.create_task(session.stream(21).write(bytes(4 << 20)))
    session.start_process(10, shell("echo through", streams=31))

    assert await everything(session, 31) == b"through\n"
    assert not writing.done()
    process.signal(9)
    assert await writing is False


async def test_output_that_is_given_up_does_not_end_the_process(session: GuestSession) -> None:
    process = session.start_process(9, shell("head -c 10000000 /dev/zero; echo done >&2"))
    await session.stream(21).receive()
    session.stream(21).reset()

    assert await everything(session, 22) == b"done\n"
    assert (await process.wait_ended()).exit_code == 0


async def test_a_port_of_the_guest_is_connected_to(session: GuestSession) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.read()).upper())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(shout, "127.0.0.1", 0) as server:
        stream = await session.connections.connect(server.sockets[0].getsockname()[1])
        await stream.write(b"hello")
        stream.finish()

        assert b"".join([chunk async for chunk in stream.read_chunks()]) == b"HELLO"


async def test_a_port_that_nobody_listens_at_is_refused(session: GuestSession) -> None:
    with pytest.raises(GuestUnreachable, match="Connection refused"):
        await session.connections.connect(1)


async def test_many_processes_come_and_go(session: GuestSession) -> None:
    for number in range(200):
        process = session.start_process(1000 + number, shell("exit 7", streams=5000 + 2 * number))
        assert (await process.wait_ended()).exit_code == 7
        process.forget_when_ended()

    assert await session.stats()


async def test_a_description_that_is_no_description_fails_its_process_only(
    session: GuestSession,
) -> None:
    process = session.start_process(9, ProcessSpec(argv=(), stdio_stream=21))

    assert (await process.wait_ended()).stage == "request"
    session.start_process(10, shell("echo alive", streams=31))
    assert await everything(session, 31) == b"alive\n"


def test_the_agent_survives_bytes_that_are_no_frames() -> None:
    """Its host is trusted; but a host that crashed may have left anything behind."""
    chance = random.Random(4)  # noqa: S311  # repeatable, not secret
    with running_agent() as sock:
        sock.settimeout(10)
        for _ in range(200):
            sock.sendall(chance.randbytes(chance.randrange(1, 5000)))
        nonce = os.urandom(16)
        sock.sendall(bytes(FRAME_MAX) + SYNC_MARK + nonce)
        received = b""
        while SYNC_MARK + nonce not in received:
            received += sock.recv(65536)


class Cut:
    """A byte channel whose connection breaks after some bytes, however they are distributed."""

    def __init__(self, inner: ByteChannel, *, after: int) -> None:
        self._inner = inner
        self._left = after

    async def read(self, most: int) -> bytes:
        data = await self._inner.read(most)
        return data[: await self._use(len(data))]

    async def write(self, data: bytes) -> None:
        await self._inner.write(data[: await self._use(len(data))])

    async def close(self) -> None:
        await self._inner.close()

    async def _use(self, size: int) -> int:
        allowed = max(0, min(size, self._left))
        self._left -= size
        if self._left <= 0:
            await self._inner.close()
        return allowed


@pytest.fixture
async def machine() -> AsyncIterator[FakeMachine]:
    host = FakeHost(require_agent())
    spec = MachineSpec(run_id="r", directory=Path("/"), vcpus=1, memory_mib=64, disks=())
    machine = await FakeHypervisor(host).start(spec)
    assert isinstance(machine, FakeMachine)
    yield machine
    await host.close()


def cuts() -> Iterator[int]:
    chance = random.Random(7)  # noqa: S311  # repeatable, not secret
    while True:
        yield chance.randrange(FRAME_MAX + 200, 400_000)


async def test_nothing_is_lost_or_doubled_by_hosts_that_crash(machine: FakeMachine) -> None:
    """Each host acknowledges only what it has written down, and is cut off at a random place."""
    sent = random.Random(1).randbytes(3_000_000)  # noqa: S311  # repeatable, not secret
    recorded = bytearray()
    ended = False
    hosts = 0
    for after in cuts():
        hosts += 1
        try:
            connection = Cut(await machine.connect(), after=after)
            async with open_session(connection, answer_seconds=10) as session:
                stream = session.open_stream(21, received=len(recorded))
                session.reset_unclaimed()
                process = session.start_process(
                    1, ProcessSpec(argv=("cat",), env=ENV, stdio_stream=21), open_streams=False
                )
                await process.wait_started()
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(feed(session, sent))
                    while not ended:
                        data, ended = await stream.receive()
                        recorded += data
                        stream.acknowledge(len(data), ended=ended)
        except* GuestUnreachable:
            pass
        if ended:
            break

    assert hosts > 5
    assert bytes(recorded) == sent


async def feed(session: GuestSession, sent: bytes) -> None:
    """Goes on writing where the guest says that its input stands."""
    known = session.channel._streams.get(21)
    if known and await session.stream(21).write(sent[known.output.end :]):
        session.stream(21).finish()


async def test_a_new_host_finds_what_an_old_one_started(machine: FakeMachine) -> None:
    async with open_session(await machine.connect(), answer_seconds=10) as first:
        await first.configure(GuestConfig(hostname="x"))
        first.start_process(9, shell("echo one; read x; echo two; exit 4"))
        await first.stream(21).receive()
    async with open_session(await machine.connect(), answer_seconds=10) as second:
        assert second.is_configured
        assert (await second.configured()).errno == 0
        assert second.new_id() > 22
        stream = second.open_stream(21, received=4)
        process = second.adopt_process(9)
        second.reset_unclaimed()
        await stream.write(b"\n")
        async with aclosing(stream.read_chunks()) as chunks:
            assert [chunk async for chunk in chunks] == [b"two\n"]
        assert (await process.wait_ended()).exit_code == 4


async def test_waiting_ends_when_the_machine_does(machine: FakeMachine) -> None:
    async with open_session(await machine.connect(), answer_seconds=10) as session:
        process = session.start_process(9, shell("sleep 60"))
        waits = [
            asyncio.create_task(process.wait_ended()),
            asyncio.create_task(session.stream(21).receive()),
            asyncio.create_task(session.stream(21).write(bytes(4 << 20))),
        ]
        await asyncio.sleep(0)
        await machine.kill()

        results = await asyncio.gather(*waits, return_exceptions=True)
        assert [type(result) for result in results] == [GuestUnreachable] * 3


async def test_a_rehearsal_is_forgotten_with_its_ids(tmp_path: Path) -> None:
    host = FakeHost(require_agent())
    spec = MachineSpec(run_id="r", directory=tmp_path, vcpus=1, memory_mib=128, disks=())
    machine = await FakeHypervisor(host).start(spec)
    try:
        async with open_session(await machine.connect(), answer_seconds=10) as session:
            assert (await session.prepare(GuestConfig(hostname=""))).errno == 0
            assert (await session.configure(GuestConfig(hostname="rehearsal"))).errno == 0
            process = session.start_process(900, shell("sleep 1000", streams=1), open_streams=True)
            await process.wait_started()
            await session.clear()
        async with open_session(await machine.connect(), answer_seconds=10) as session:
            assert session.welcome is not None
            assert (session.welcome.configured, session.welcome.highest_id) == (False, 0)
            assert (await session.configure(GuestConfig(hostname="run"))).errno == 0
            process = session.start_process(900, shell("exit 7", streams=1))
            assert (await process.wait_ended()).exit_code == 7
    finally:
        await host.close()


async def test_a_process_that_is_only_rehearsed_runs_the_agent_s_own_program(
    session: GuestSession,
) -> None:
    spec = ProcessSpec(argv=("nothing",), stdio_stream=21, builtin=Builtin.NOTHING)

    assert (await session.start_process(9, spec).wait_ended()).exit_code == 0
