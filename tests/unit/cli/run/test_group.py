"""Several runs that are followed and ended together."""

import asyncio

import pytest
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli.render.lines import PrefixedLines
from cli.run.group import GroupRun, MemberEnd, group_code
from lns.client.running.members import members_of
from lns.client.running.watching import State, Watch
from services.chassis.status import to_status
from services.core.errors import VmFailed
from tests.fakes.run_services import FakeGroup, FakeRunner, exited, stderr, stdout
from tests.support.awaited import Awaited
from tests.support.eventually import eventually


class Setting:
    """Two runs in the foreground."""

    def __init__(self) -> None:
        self.runner = FakeGroup("web", "worker")
        self.notes: list[str] = []
        self.out = b""
        self.watches = {
            name: Watch(self.runner, member.run, note=self.notes.append)
            for name, member in self.runner.members.items()
        }
        self.group = GroupRun(
            self.watches, self.runner, revive=self._revive, note=self.notes.append
        )

    @staticmethod
    async def _revive() -> None:
        pass

    def __getitem__(self, name: str) -> FakeRunner:
        return self.runner.members[name]

    def runs(self, name: str, *output: pb.AttachResponse | asyncio.Event, code: int = 0) -> None:
        """Scripts a member that runs, writes and exits."""
        member = self[name]
        member.run.state = State.STATE_RUNNING
        member.state(State.STATE_RUNNING)
        waits = [step for step in output if isinstance(step, asyncio.Event)]
        member.events += waits
        member.state(State.STATE_EXITED, exit=run_pb2.ExitStatus(code=code))
        member.connections.append([*output, exited(code)])

    async def follow(self) -> list[MemberEnd]:
        async def write(data: bytes, is_error: bool) -> None:
            self.out += (b"!" if is_error else b"") + data

        return await self.group.follow(PrefixedLines(list(self.runner.members), write=write))


async def test_what_members_write_is_shown_until_all_have_ended() -> None:
    setting = Setting()
    later = asyncio.Event()
    setting.runs("web", stdout(b"serving\n"), later, stdout(b"last"), code=0)
    setting.runs("worker", stderr(b"no work\n"), code=3)

    following = asyncio.ensure_future(setting.follow())
    await eventually(lambda: b"serving" in setting.out and b"no work" in setting.out)
    assert not following.done()
    later.set()
    ends = await following

    assert [(end.name, end.code) for end in ends] == [("web", 0), ("worker", 3)]
    assert sorted(setting.out.splitlines()) == [
        b"!worker | no work",
        b"web    | last",
        b"web    | serving",
    ]
    assert not setting["web"].stopping.is_set()


@pytest.mark.parametrize(
    ("codes", "code"), [((0, 0), 0), ((0, 7), 7), ((3, 7), 3), ((125, 0), 125)]
)
def test_the_code_of_a_group_is_the_first_that_is_not_0(codes: tuple[int, ...], code: int) -> None:
    assert group_code([MemberEnd(name="x", code=one) for one in codes]) == code


async def test_a_member_that_fails_to_start_ends_the_others() -> None:
    setting = Setting()
    setting.runs("web", setting["web"].stopping, code=143)
    failure = to_status(VmFailed("QEMU ended"))
    setting["worker"].state(State.STATE_FAILED, error=failure)
    setting["worker"].connections.append([VmFailed("QEMU ended")])

    ends = await setting.follow()

    assert [end.code for end in ends] == [143, 125]
    assert isinstance(ends[1].error, VmFailed)
    assert setting.notes == [
        "lns: worker failed",
        "lns: worker did not start; the others are stopped",
        "lns: web ended with 143",
    ]


async def test_a_member_whose_command_is_not_there_ends_the_others() -> None:
    setting = Setting()
    setting.runs("web", setting["web"].stopping, code=0)
    setting["worker"].state(State.STATE_EXITED, exit=run_pb2.ExitStatus(code=127))
    setting["worker"].connections.append([exited(127)])

    assert group_code(await setting.follow()) == 127


async def test_a_member_that_ends_later_leaves_the_others_alone() -> None:
    setting = Setting()
    later = asyncio.Event()
    setting.runs("web", later)
    setting.runs("worker", code=1)

    following = asyncio.ensure_future(setting.follow())
    await eventually(lambda: "lns: worker ended with 1" in setting.notes)
    assert not setting["web"].stopping.is_set()
    later.set()
    await following


@pytest.mark.parametrize("signal", ["INT", "TERM", "HUP", "QUIT"])
async def test_a_signal_stops_all_and_a_second_one_kills_them(signal: str) -> None:
    setting = Setting()
    killed = asyncio.Event()
    for name in ("web", "worker"):
        setting.runs(name, killed, code=137)
    following = asyncio.ensure_future(setting.follow())

    setting.group.signalled(signal)
    await eventually(lambda: all(setting[name].stopping.is_set() for name in ("web", "worker")))
    assert setting["web"].signals == []
    setting.group.signalled(signal)
    await eventually(lambda: setting["worker"].signals == setting["web"].signals == ["KILL"])

    killed.set()
    assert [end.code for end in await following] == [137, 137]


async def test_other_signals_reach_all() -> None:
    setting = Setting()
    done = asyncio.Event()
    for name in ("web", "worker"):
        setting.runs(name, done)
    following = asyncio.ensure_future(setting.follow())

    setting.group.signalled("USR1")
    await eventually(lambda: setting["worker"].signals == setting["web"].signals == ["USR1"])
    done.set()
    await following
    assert not setting["web"].stopping.is_set()


async def test_in_the_background_a_group_is_ready_when_all_have_started() -> None:
    setting = Setting()
    started = Awaited()
    setting["web"].state(State.STATE_RUNNING)
    setting["worker"].events.append(started)
    setting["worker"].state(State.STATE_RUNNING)

    waiting = asyncio.ensure_future(setting.group.until_started())
    await started.reached.wait()
    await eventually(lambda: setting.watches["web"].has_started)
    assert not waiting.done()
    started.set()
    await waiting
    assert not setting["web"].stopping.is_set()


async def test_in_the_background_too_a_group_starts_as_a_whole() -> None:
    setting = Setting()
    setting["web"].state(State.STATE_RUNNING)
    setting["worker"].state(State.STATE_FAILED, error=to_status(VmFailed("QEMU ended")))

    with pytest.raises(VmFailed):
        await setting.group.until_started()
    assert setting["web"].stopping.is_set()


async def test_the_runs_of_a_group_come_in_the_order_of_its_members() -> None:
    runner = FakeGroup("web", "worker")
    for member in runner.members.values():
        member.run.group.members[:] = ["worker", "web"]

    assert [run.run_id for run in await members_of(runner, "team")] == ["worker", "web"]
