import asyncio

import pytest
from lns.vm.v1 import vm_service_pb2 as pb

from lns.client.running.attachment import Attachment
from services.core.errors import (
    AttachLagging,
    LnsError,
    RunStateConflict,
    RunUnknown,
    ServiceUnavailable,
)
from tests.fakes.run_services import RUN_ID, FakeRunner, exited, stderr, stdout
from tests.support.eventually import eventually

STARTED = pb.AttachResponse(started=pb.Attached(run_id=RUN_ID))


class FakeConsole:
    """A user who does what the test says, and what was shown to them."""

    def __init__(self) -> None:
        self.types: asyncio.Queue[bytes] = asyncio.Queue()
        self.does: asyncio.Queue[pb.AttachRequest] = asyncio.Queue()
        self.out = b""
        self.error = b""
        self.is_broken = False

    async def next_input(self) -> bytes:
        return await self.types.get()

    async def next_control(self) -> pb.AttachRequest:
        return await self.does.get()

    async def show(self, data: bytes, *, is_error: bool) -> None:
        if self.is_broken:
            raise BrokenPipeError
        if is_error:
            self.error += data
        else:
            self.out += data


class Revived:
    def __init__(self) -> None:
        self.times = 0

    async def __call__(self) -> None:
        self.times += 1


def attachment(
    runner: FakeRunner, console: FakeConsole, *, start: pb.AttachStart | None = None
) -> tuple[Attachment, Revived]:
    revived = Revived()
    start = start or pb.AttachStart(run=RUN_ID, replay=True, stdin=True)
    return Attachment(runner, start, console, revive=revived), revived


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lns.client.running.attachment._PAUSE_SECONDS", 0)
    monkeypatch.setattr("lns.client.running.attachment._DETACH_SECONDS", 0.05)


async def test_output_goes_to_its_stream_and_the_exit_code_comes_back() -> None:
    runner, console = FakeRunner(), FakeConsole()
    runner.connections = [[STARTED, stdout(b"out\x00\xff"), stderr(b"err"), exited(3)]]

    status = await attachment(runner, console)[0].follow()

    assert status is not None
    assert status.code == 3
    assert (console.out, console.error) == (b"out\x00\xff", b"err")


async def test_what_is_typed_arrives_in_order_with_its_end() -> None:
    runner, console = FakeRunner(), FakeConsole()
    enough = asyncio.Event()
    runner.connections = [[STARTED, enough, exited(0)]]
    for typed in (b"a", b"b", b""):
        console.types.put_nowait(typed)

    following = asyncio.ensure_future(attachment(runner, console)[0].follow())
    await eventually(lambda: bool(runner.received) and len(runner.received[0]) == 3)
    enough.set()
    await following

    assert runner.starts[0].run == RUN_ID
    assert b"".join(request.stdin for request in runner.received[0]) == b"ab"
    assert runner.received[0][-1].HasField("stdin_closed")


async def test_a_signal_does_not_wait_behind_what_is_typed() -> None:
    """The service takes nothing: the client keeps what is under way below the bound."""
    runner, console = FakeRunner(), FakeConsole()
    enough = asyncio.Event()
    runner.connections = [[STARTED, enough, exited(0)]]
    for _ in range(40):
        console.types.put_nowait(bytes(64 * 1024))

    following = asyncio.ensure_future(attachment(runner, console)[0].follow())
    await eventually(lambda: bool(runner.received) and len(runner.received[0]) == 8)
    console.does.put_nowait(pb.AttachRequest(signal="INT"))
    await eventually(lambda: len(runner.received[0]) == 9)
    enough.set()
    await following

    assert runner.received[0][-1].signal == "INT"


async def test_what_was_taken_makes_room_for_more() -> None:
    runner, console = FakeRunner(), FakeConsole()
    taken, enough = asyncio.Event(), asyncio.Event()
    ready = pb.AttachResponse(stdin_ready=pb.StdinReady(position=0, boot=1))
    runner.connections = [
        [STARTED, ready, taken, pb.AttachResponse(stdin_taken=100_000), enough, exited(0)]
    ]
    for _ in range(40):
        console.types.put_nowait(bytes(64 * 1024))

    following = asyncio.ensure_future(attachment(runner, console)[0].follow())
    await eventually(lambda: bool(runner.received) and sent(runner.received[0]) == 512 * 1024)
    taken.set()
    await eventually(lambda: sent(runner.received[0]) > 600_000)
    enough.set()
    await following


def sent(requests: list[pb.AttachRequest]) -> int:
    return sum(len(request.stdin) for request in requests)


@pytest.mark.parametrize(
    ("position", "boot", "again"),
    [
        (100, 1, b"one two "),  # nothing had arrived
        (104, 1, b"two "),
        (108, 1, b""),
        (0, 2, b""),  # the run started again: what its former life was sent is not for this one
        (5000, 1, b""),  # others wrote
        (3, 1, b"one two "),
    ],
)
async def test_typed_input_is_neither_lost_nor_doubled_by_a_lost_connection(
    position: int, boot: int, again: bytes
) -> None:
    runner, console = FakeRunner(), FakeConsole()
    broken, enough = asyncio.Event(), asyncio.Event()
    first = pb.AttachResponse(stdin_ready=pb.StdinReady(position=100, boot=1))
    second = pb.AttachResponse(stdin_ready=pb.StdinReady(position=position, boot=boot))
    runner.connections = [
        [STARTED, first, broken, ServiceUnavailable("gone")],
        [STARTED, second, enough, exited(0)],
    ]
    console.types.put_nowait(b"one two ")

    following = asyncio.ensure_future(attachment(runner, console)[0].follow())
    await eventually(lambda: bool(runner.received) and sent(runner.received[0]) == 8)
    broken.set()
    await eventually(lambda: len(runner.received) == 2)
    console.types.put_nowait(b"three")
    await eventually(lambda: b"three" in b"".join(r.stdin for r in runner.received[1]))
    enough.set()
    await following

    assert b"".join(request.stdin for request in runner.received[1]) == again + b"three"


async def test_an_exec_whose_reader_is_gone_learns_it_and_ends() -> None:
    runner, console = FakeRunner(), FakeConsole()
    console.is_broken = True
    runner.connections = [[STARTED, stdout(b"x"), asyncio.Event()]]
    start = pb.AttachStart(run=RUN_ID, exec=pb.ExecSpec(argv=["yes"]))

    with pytest.raises(BrokenPipeError):
        await attachment(runner, console, start=start)[0].follow()

    assert [one.WhichOneof("message") for one in runner.received[0]] == ["output_closed"]


@pytest.mark.parametrize("failure", [ServiceUnavailable("gone"), AttachLagging("too slow")])
async def test_a_lost_connection_is_taken_up_without_a_byte_twice(failure: LnsError) -> None:
    runner, console = FakeRunner(), FakeConsole()
    runner.connections = [
        [STARTED, stdout(b"one two "), stderr(b"e1"), failure],
        [STARTED, stdout(b"one "), stderr(b"e1e2"), stdout(b"two three"), exited(0)],
    ]

    subject, revived = attachment(runner, console)
    status = await subject.follow()

    assert status is not None
    assert console.out == b"one two three"
    assert console.error == b"e1e2"
    assert revived.times == 1


async def test_without_replay_a_lost_connection_goes_on_and_says_what_was_missed() -> None:
    runner, console, notes = FakeRunner(), FakeConsole(), list[str]()
    runner.connections = [
        [STARTED, stdout(b"one "), ServiceUnavailable("gone")],
        [STARTED, stdout(b"three"), exited(4)],
    ]

    async def revive() -> None:
        pass

    start = pb.AttachStart(run=RUN_ID)
    subject = Attachment(runner, start, console, revive=revive, note=notes.append)
    status = await subject.follow()

    assert status is not None
    assert status.code == 4
    assert console.out == b"one three"
    assert notes == [f"lns: attached again; `lns logs {RUN_ID}` has what was missed"]


async def test_the_end_of_input_is_reported_again_after_a_lost_connection() -> None:
    runner, console = FakeRunner(), FakeConsole()
    console.types.put_nowait(b"")
    broken, enough = asyncio.Event(), asyncio.Event()
    ready = pb.AttachResponse(stdin_ready=pb.StdinReady(position=0, boot=1))
    runner.connections = [
        [STARTED, broken, ServiceUnavailable("gone")],
        [STARTED, ready, enough, exited(0)],
    ]

    following = asyncio.ensure_future(attachment(runner, console)[0].follow())
    await eventually(lambda: bool(runner.received) and bool(runner.received[0]))
    broken.set()
    await eventually(lambda: len(runner.received) == 2 and bool(runner.received[1]))
    enough.set()
    await following

    assert runner.received[1][0].HasField("stdin_closed")


async def test_services_that_stay_away_are_given_up() -> None:
    runner, console = FakeRunner(), FakeConsole()
    runner.connections = [[ServiceUnavailable("gone")]]

    subject, revived = attachment(runner, console)
    with pytest.raises(ServiceUnavailable):
        await subject.follow()

    assert revived.times == 5


async def test_a_connection_that_worked_earns_new_patience() -> None:
    runner, console = FakeRunner(), FakeConsole()
    runner.connections = [
        *[[STARTED, ServiceUnavailable("gone")] for _ in range(12)],
        [STARTED, exited(0)],
    ]

    assert await attachment(runner, console)[0].follow() is not None


async def test_a_stream_that_just_ends_is_a_lost_connection() -> None:
    runner, console = FakeRunner(), FakeConsole()
    runner.connections = [[STARTED, stdout(b"x")], [STARTED, stdout(b"x"), exited(9)]]

    status = await attachment(runner, console)[0].follow()

    assert status is not None
    assert status.code == 9
    assert console.out == b"x"


@pytest.mark.parametrize("failure", [RunUnknown("no run"), RunStateConflict("not running")])
async def test_a_refusal_is_final(failure: LnsError) -> None:
    runner, console = FakeRunner(), FakeConsole()
    runner.connections = [[failure]]

    subject, revived = attachment(runner, console)
    with pytest.raises(type(failure)):
        await subject.follow()

    assert revived.times == 0


async def test_an_exec_is_never_started_twice() -> None:
    runner, console = FakeRunner(), FakeConsole()
    runner.connections = [[STARTED, ServiceUnavailable("gone")], [STARTED, exited(0)]]
    start = pb.AttachStart(run=RUN_ID, exec=pb.ExecSpec(argv=["true"]))

    with pytest.raises(ServiceUnavailable):
        await attachment(runner, console, start=start)[0].follow()

    assert len(runner.received) == 1


async def test_leaving_is_confirmed_by_the_service() -> None:
    runner, console = FakeRunner(), FakeConsole()
    runner.connections = [[STARTED, pb.AttachResponse(detached=pb.Detach())]]
    console.does.put_nowait(pb.AttachRequest(detach=pb.Detach()))

    assert await attachment(runner, console)[0].follow() is None


async def test_what_was_typed_before_leaving_is_sent_before_it() -> None:
    runner, console = FakeRunner(), FakeConsole()
    enough = asyncio.Event()
    runner.connections = [[STARTED, enough, pb.AttachResponse(detached=pb.Detach())]]

    following = asyncio.ensure_future(attachment(runner, console)[0].follow())
    await eventually(lambda: bool(runner.starts))
    console.types.put_nowait(b"last words")
    await asyncio.sleep(0)
    console.does.put_nowait(pb.AttachRequest(detach=pb.Detach()))
    await eventually(lambda: len(runner.received[0]) == 2)
    enough.set()

    assert await following is None
    assert [one.WhichOneof("message") for one in runner.received[0]] == ["stdin", "detach"]


async def test_what_was_typed_after_a_lost_connection_is_sent_before_leaving() -> None:
    runner, console = FakeRunner(), FakeConsole()
    ready, enough = asyncio.Event(), asyncio.Event()
    first = pb.AttachResponse(stdin_ready=pb.StdinReady(position=0, boot=1))
    runner.connections = [
        [STARTED, first, ServiceUnavailable("gone")],
        [STARTED, ready, first, enough, pb.AttachResponse(detached=pb.Detach())],
    ]

    following = asyncio.ensure_future(attachment(runner, console)[0].follow())
    await eventually(lambda: len(runner.received) == 2)
    console.types.put_nowait(b"last words")
    await asyncio.sleep(0)
    console.does.put_nowait(pb.AttachRequest(detach=pb.Detach()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert runner.received[1] == []  # the service has not said yet what arrived
    ready.set()
    await eventually(lambda: len(runner.received[1]) == 2)
    enough.set()

    assert await following is None
    assert [one.WhichOneof("message") for one in runner.received[1]] == ["stdin", "detach"]


async def test_leaving_is_not_held_up_for_long_by_a_service_that_says_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lns.client.running.attachment._HELD_SECONDS", 0.05)
    runner, console = FakeRunner(), FakeConsole()
    first = pb.AttachResponse(stdin_ready=pb.StdinReady(position=0, boot=1))
    runner.connections = [[STARTED, first, ServiceUnavailable("gone")], [STARTED, asyncio.Event()]]

    following = asyncio.ensure_future(attachment(runner, console)[0].follow())
    await eventually(lambda: len(runner.received) == 2)
    console.types.put_nowait(b"last words")
    await asyncio.sleep(0)
    console.does.put_nowait(pb.AttachRequest(detach=pb.Detach()))

    async with asyncio.timeout(5):
        assert await following is None


async def test_leaving_works_also_when_the_service_does_not_answer() -> None:
    runner, console = FakeRunner(), FakeConsole()
    runner.connections = [[STARTED, asyncio.Event()]]
    console.does.put_nowait(pb.AttachRequest(detach=pb.Detach()))

    async with asyncio.timeout(5):
        assert await attachment(runner, console)[0].follow() is None


async def test_cancelling_leaves_no_task_behind() -> None:
    runner, console = FakeRunner(), FakeConsole()
    runner.connections = [[STARTED, asyncio.Event()]]

    following = asyncio.ensure_future(attachment(runner, console)[0].follow())
    await eventually(lambda: bool(runner.received))
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following
    for _ in range(5):
        await asyncio.sleep(0)

    assert asyncio.all_tasks() == {asyncio.current_task()}
