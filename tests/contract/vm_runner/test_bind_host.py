"""What every host of binds promises: processes that serve files, and the fake of other tests."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.core.errors import RequestInvalid, VmFailed
from services.vm_runner.adapters.confinement.cgroups import Cgroups, find_place
from services.vm_runner.adapters.file_servers import FileServers
from services.vm_runner.machines import HostPort
from services.vm_runner.storage.bind_host import BindHost, BindSource, ServedBind
from tests.fakes.vm_outside import FakeBindHost

RUN = "b" * 32
SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An implementer, beside a microVM with two ports.

    Attributes:
        host: the implementer.
        later: makes the one of the service that comes after this one.
        end_machine: ends the microVM, and with it what listens at its ports.
        kill: ends by force what serves a bind.
        served: says which ports are served.
    """

    host: BindHost
    later: Callable[[], BindHost]
    end_machine: Callable[[], None]
    kill: Callable[[ServedBind], None]
    served: Callable[[], set[str]]


@contextlib.asynccontextmanager
async def fake(home: Path) -> AsyncIterator[Subject]:
    folder = home / "bound"
    found = BindSource(path=folder, is_file=False, secrets=(".env",))
    host = FakeBindHost(
        sources={
            str(folder): found,
            str(home / "link"): found,
            str(folder / "a"): BindSource(path=folder / "a", is_file=True),
        }
    )

    def end_machine() -> None:
        for port in list(host.serving):
            host.end(port, "ended with status 0")
        host.fail_next = VmFailed("it cannot be served: nobody listens")

    yield Subject(
        host=host,
        later=lambda: host,
        end_machine=end_machine,
        kill=lambda bind: host.end(bind.port.name, "was killed by SIGKILL"),
        served=lambda: set(host.serving),
    )


@contextlib.asynccontextmanager
async def processes(home: Path) -> AsyncIterator[Subject]:
    machine = home / "machine"
    machine.mkdir()
    cgroups = Cgroups(find_place(is_root=os.geteuid() == 0))

    def make() -> BindHost:
        return FileServers(home / "home", cgroups=cgroups, view_required=False)

    def pid(port: str) -> int:
        return int((machine / f"{port.removeprefix('lns.')}.pid").read_text())

    def served() -> set[str]:
        found = set()
        for port in ("lns.bind0", "lns.bind1"):
            with contextlib.suppress(OSError):  # no pid file, or nobody of that number but a zombie
                Path(f"/proc/{pid(port)}/exe").readlink()
                found.add(port)
        return found

    with contextlib.ExitStack() as listening:
        for name in ("bind0.sock", "bind1.sock"):
            listener = listening.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(machine / name))
            listener.listen(2)

        def end_machine() -> None:
            listening.close()
            for name in ("bind0.sock", "bind1.sock"):
                (machine / name).unlink()

        yield Subject(
            host=make(),
            later=make,
            end_machine=end_machine,
            kill=lambda bind: os.kill(pid(bind.port.name), signal.SIGKILL),
            served=served,
        )


@pytest.fixture(params=[fake, processes])
async def subject(
    request: pytest.FixtureRequest, short_directory: Path, folder: Path
) -> AsyncIterator[Subject]:
    async with request.param(short_directory) as subject:
        yield subject


@pytest.fixture
def folder(short_directory: Path) -> Path:
    folder = short_directory / "bound"
    folder.mkdir()
    (folder / "a").write_text("content\n")
    (folder / ".env").write_text("KEY=1\n")
    (short_directory / "link").symlink_to(folder)
    return folder


@pytest.fixture
def binds(short_directory: Path, folder: Path) -> tuple[ServedBind, ...]:
    return tuple(
        ServedBind(
            run_id=RUN,
            directory=short_directory / "machine",
            port=HostPort(name=f"lns.bind{number}", socket=f"bind{number}.sock"),
            source=folder,
            read_only=False,
            keep_secrets=False,
        )
        for number in range(2)
    )


async def test_what_exists_is_found_as_it_is(subject: Subject, folder: Path) -> None:
    expected = BindSource(path=folder, is_file=False, secrets=(".env",))

    assert await subject.host.look(str(folder)) == expected
    assert await subject.host.look(str(folder.parent / "link")) == expected
    assert await subject.host.look(str(folder / "a")) == BindSource(path=folder / "a", is_file=True)


async def test_what_does_not_exist_is_refused(subject: Subject, folder: Path) -> None:
    with pytest.raises(RequestInvalid, match="missing cannot be bound: "):
        await subject.host.look(str(folder / "missing"))


async def test_binds_are_served_until_their_machine_ends(
    subject: Subject, binds: tuple[ServedBind, ...]
) -> None:
    for bind in binds:
        await subject.host.serve(bind)
    assert subject.served() == {"lns.bind0", "lns.bind1"}
    losses = asyncio.gather(*(subject.host.lost(bind) for bind in binds))

    subject.end_machine()
    async with asyncio.timeout(SECONDS):
        assert [fate.startswith("ended with status") for fate in await losses] == [True, True]
        await subject.host.ended(binds)
    assert subject.served() == set()


async def test_a_bind_that_is_lost_is_reported_and_the_other_goes_on(
    subject: Subject, binds: tuple[ServedBind, ...]
) -> None:
    for bind in binds:
        await subject.host.serve(bind)
    stays = asyncio.ensure_future(subject.host.lost(binds[0]))

    subject.kill(binds[1])
    async with asyncio.timeout(SECONDS):
        assert await subject.host.lost(binds[1]) == "was killed by SIGKILL"
    assert not stays.done()
    assert subject.served() == {"lns.bind0"}

    subject.end_machine()
    async with asyncio.timeout(SECONDS):
        await subject.host.ended(binds)
        await stays


async def test_the_next_service_finds_what_is_served_and_serves_what_is_not(
    subject: Subject, binds: tuple[ServedBind, ...]
) -> None:
    await subject.host.serve(binds[0])
    later = subject.later()
    for bind in binds:
        await later.serve(bind)
    lost = asyncio.ensure_future(subject.host.lost(binds[0]))
    await asyncio.sleep(0)
    assert not lost.done(), "the first one serves on"
    assert subject.served() == {"lns.bind0", "lns.bind1"}

    subject.end_machine()
    async with asyncio.timeout(SECONDS):
        await later.ended(binds)
        await lost
    assert subject.served() == set()


async def test_what_cannot_be_served_is_reported(
    subject: Subject, binds: tuple[ServedBind, ...]
) -> None:
    subject.end_machine()
    with pytest.raises(VmFailed, match="cannot be served: "):
        await subject.host.serve(binds[0])

    assert subject.served() == set()
    await subject.host.ended(binds)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("home", "keeps its own state"),
        ("home/blobs", "keeps its own state"),
        (".", "keeps its own state"),
        ("way", "keeps its own state"),
        ("/", "root and its system"),
        ("/proc", "root and its system"),
        ("/etc/..", "root and its system"),
    ],
)
async def test_the_state_directory_and_what_holds_it_are_not_bound(
    short_directory: Path, place: str, reason: str
) -> None:
    (short_directory / "home" / "blobs").mkdir(parents=True)
    (short_directory / "way").symlink_to("home/blobs")
    host = FileServers(short_directory / "home", cgroups=Cgroups(None), view_required=False)

    with pytest.raises(RequestInvalid, match=reason):
        await host.look(str(short_directory / place))
