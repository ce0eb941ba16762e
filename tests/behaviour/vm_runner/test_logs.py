"""What a run wrote, from disk."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.core.errors import RunUnknown
from tests.support.vm_service import VmClient, VmWorld, vm_service

pb = vm_service_pb2
Stream = pb.ReadLogsResponse


@pytest.fixture
async def run(vm: VmClient) -> str:
    """A run that wrote four lines, the last without an end."""
    script = "echo one; sleep 0.3; echo two >&2; sleep 0.3; echo three; printf four"
    run = await vm.shell(script)
    await vm.ended(run.run_id)
    return run.run_id


async def test_both_streams_are_kept_in_the_order_of_their_coming(vm: VmClient, run: str) -> None:
    pieces = [piece async for piece in vm.stub.ReadLogs(pb.ReadLogsRequest(run=run))]

    assert b"".join(piece.data for piece in pieces) == b"one\ntwo\nthree\nfour"
    assert [piece.stream for piece in pieces][:2] == [Stream.STREAM_STDOUT, Stream.STREAM_STDERR]
    times = [piece.log_time.ToNanoseconds() for piece in pieces]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (0, b""),
        (1, b"four"),
        (2, b"three\nfour"),
        (3, b"two\nthree\nfour"),
        (100, b"one\ntwo\nthree\nfour"),
    ],
)
async def test_the_last_lines_are_asked_for(
    vm: VmClient, run: str, lines: int, expected: bytes
) -> None:
    assert await vm.logs(run, tail_lines=lines) == expected


async def test_since_and_until_cut_by_time(vm: VmClient, run: str) -> None:
    pieces = [piece async for piece in vm.stub.ReadLogs(pb.ReadLogsRequest(run=run))]
    second = pieces[1].log_time

    assert await vm.logs(run, since_time=second) == b"two\nthree\nfour"
    assert await vm.logs(run, until_time=second) == b"one\n"
    assert await vm.logs(run, since_time=Timestamp(seconds=4_000_000_000)) == b""


async def test_a_log_is_followed_until_the_run_ends(vm: VmClient) -> None:
    run = await vm.shell("echo one; read x; echo two", options=run_pb2.RunOptions(stdin=True))
    following = vm.stub.ReadLogs(pb.ReadLogsRequest(run=run.run_id, follow=True))
    assert (await following.read()).data == b"one\n"
    start = pb.AttachStart(run=run.run_id, stdin=True)
    async with vm.attach(start) as terminal:
        await terminal.send(stdin=b"\n")
        assert (await following.read()).data == b"two\n"

    assert [piece async for piece in following] == []


async def test_a_follower_may_begin_with_the_last_lines(vm: VmClient) -> None:
    run = await vm.shell(
        "echo one; echo two; read x; echo three", options=run_pb2.RunOptions(stdin=True)
    )
    async with vm.attach(pb.AttachStart(run=run.run_id, stdin=True, replay=True)) as terminal:
        await terminal.until(b"two\n")
        request = pb.ReadLogsRequest(run=run.run_id, follow=True, tail_lines=1)
        following = vm.stub.ReadLogs(request)
        assert (await following.read()).data == b"two\n"
        await terminal.send(stdin=b"\n")

    assert [piece.data async for piece in following] == [b"three\n"]


async def test_the_log_is_bounded_and_keeps_the_end(world: VmWorld) -> None:
    world.log_bytes = 512 * 1024
    async with vm_service(world) as vm:
        run = await vm.shell("seq 1 1000000; echo the end")
        await vm.ended(run.run_id)
        kept = await vm.logs(run.run_id)
        files = (world.home / "runs" / run.run_id / "logs").iterdir()

        assert kept.endswith(b"\n1000000\nthe end\n")
        assert sum(path.stat().st_size for path in files) < 1.2 * 512 * 1024
        assert await vm.logs(run.run_id, tail_lines=2) == b"1000000\nthe end\n"


async def test_a_run_may_name_its_own_limit(vm: VmClient, world: VmWorld) -> None:
    run = await vm.shell(
        "seq 1 1000000", options=run_pb2.RunOptions(log_limit_bytes=2 * 1024 * 1024)
    )
    await vm.ended(run.run_id)

    assert 1024 * 1024 < len(await vm.logs(run.run_id)) < 3 * 1024 * 1024


async def test_logs_of_nobody_are_not_found(vm: VmClient) -> None:
    with pytest.raises(RunUnknown):
        await vm.logs("nobody")


async def test_a_log_survives_the_service(world: VmWorld) -> None:
    async with vm_service(world) as vm:
        run = await vm.shell("echo kept")
        await vm.ended(run.run_id)
    async with vm_service(world) as vm:
        assert await vm.logs(run.run_id) == b"kept\n"
        out, _, status = await vm.output(run.run_id)
        assert (out, status.code) == (b"kept\n", 0)
