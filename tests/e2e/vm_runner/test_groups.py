"""Runs of a group in real microVMs: they reach each other by name, and nobody else does."""

import asyncio
import contextlib
import hashlib
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from lns.vm.v1 import run_pb2, vm_service_pb2

from services.core.errors import GuestUnreachable
from tests.support.materializer import served
from tests.support.microvm import BIG, busybox_image, require_microvms, served_runner

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
pb = vm_service_pb2
Run = run_pb2.Run


class Team:
    """Two runs of one group and one of another, through whose shells the tests look."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.runs: dict[str, str] = {}
        self._stack = contextlib.AsyncExitStack()

    async def serve(self) -> None:
        """Starts vm_runner, again after an earlier one was ended."""
        await self._stack.aclose()
        self.vm = await self._stack.enter_async_context(served_runner(self.home))

    async def close(self) -> None:
        for run_id in self.runs.values():
            await self.vm.stub.RemoveRun(pb.RemoveRunRequest(run=run_id, force=True))
        await self._stack.aclose()

    async def reachable(self, name: str) -> None:
        """Waits until a run that was adopted can be reached."""
        while True:
            with contextlib.suppress(GuestUnreachable):
                await self.sh(name, "true")
                return
            await asyncio.sleep(0.1)

    async def sh(self, name: str, script: str) -> str:
        """Runs a script in a run; returns both outputs together."""
        out, err, _ = await self.vm.execute(self.runs[name], "sh", "-c", script)
        return (out + err).decode().strip()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def team() -> AsyncIterator[Team]:
    require_microvms()
    home = Path(tempfile.mkdtemp(prefix="lns", dir="/tmp"))
    team = Team(home)
    try:
        async with served(home) as images:
            await team.serve()
            image = await busybox_image(images)
            ours, theirs = secrets.token_hex(16), secrets.token_hex(16)
            for name, group, member in (
                ("web", ours, "web"),
                ("client", ours, "client"),
                ("stranger", theirs, "client"),
            ):
                run = await team.vm.create(
                    *("httpd", "-f", "-p", "80", "-h", "/opt"),
                    digest=image.composefs_digest,
                    group=run_pb2.RunGroup(id=group, members=["web", "client"]),
                    member=member,
                )
                team.runs[name] = run.run_id
            for run_id in team.runs.values():
                await team.vm.until(run_id, Run.STATE_RUNNING)
            yield team
            await team.close()
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def test_a_group_has_a_name_of_its_own_and_so_have_its_runs(team: Team) -> None:
    runs = {name: await team.vm.get(run_id) for name, run_id in team.runs.items()}

    assert {name: (run.group.name, run.name) for name, run in runs.items()} == {
        "web": ("team", "team-web"),
        "client": ("team", "team-client"),
        "stranger": ("team-2", "team-2-client"),
    }
    assert await team.sh("client", "hostname; grep web /etc/hosts") == "client\n127.77.1.1\tweb"


async def test_a_peer_is_reached_by_name_and_every_byte_arrives(team: Team) -> None:
    digest = hashlib.sha256(BIG).hexdigest()

    assert await team.sh("client", "wget -q -O - http://web/big | sha256sum") == f"{digest}  -"


async def test_a_connection_closes_by_halves(team: Team) -> None:
    listener = asyncio.create_task(team.sh("web", "nc -l -p 7000 -e sh -c 'wc -c; hostname'"))
    ask = "until head -c 300000 /opt/big | nc web 7000; do sleep 0.1; done"

    assert await team.sh("client", f"({ask}) 2>/dev/null") == "300000\nweb"
    await listener


async def test_a_port_without_a_listener_is_refused_as_a_genuine_one_is(team: Team) -> None:
    began = time.monotonic()
    refused = await team.sh("client", "nc web 81 </dev/null")

    assert "Connection refused" in refused
    assert time.monotonic() - began < 10


async def test_a_listener_at_all_addresses_does_not_catch_what_goes_to_a_peer(team: Team) -> None:
    listener = asyncio.create_task(team.sh("client", "timeout 2 nc -l -p 81 0.0.0.0 </dev/null"))
    await team.sh("client", "until grep -q ':0051 ' /proc/net/tcp*; do sleep 0.1; done")

    assert "Connection refused" in await team.sh("client", "nc web 81 </dev/null")
    await listener


@pytest.mark.parametrize("address", ["127.77.1.1", "127.77.1.9", "127.77.0.1", "127.77.0.0"])
async def test_an_address_that_stands_for_nobody_alive_is_refused(team: Team, address: str) -> None:
    for port in (1, 80):
        reached = await team.sh("stranger", f"nc -w 9 {address} {port} </dev/null")
        assert "Connection refused" in reached


async def test_datagrams_reach_nobody(team: Team) -> None:
    listener = asyncio.create_task(team.sh("client", "timeout 2 nc -u -l -p 90 </dev/null"))
    await team.sh("client", "for n in 1 2 3; do echo lost | nc -u -w 1 web 90; done; true")

    assert "lost" not in await listener


async def test_many_connections_at_once_are_carried(team: Team) -> None:
    script = """
        for n in $(seq 60); do wget -q -O /tmp/got.$n http://web/plain & done
        wait; cat /tmp/got.* | wc -c
    """
    assert await team.sh("client", script) == str(60 * len("no program"))


async def test_a_service_that_ends_resets_connections_and_the_next_one_carries_new_ones(
    team: Team,
) -> None:
    await team.sh("web", "nc -l -p 7001 -e sleep 600 >/dev/null 2>&1 &")
    held = "until nc web 7001 </dev/null; do sleep 0.1; done; echo over >/tmp/over"
    await team.sh("client", f"({held}) >/dev/null 2>&1 &")
    await team.sh("client", "until grep -q ':1B59 0[1-6] ' /proc/net/tcp; do sleep 0.1; done")

    await team.serve()
    for run in ("web", "client"):
        await team.reachable(run)

    assert await team.sh("client", "until cat /tmp/over 2>/dev/null; do sleep 0.1; done") == "over"
    assert await team.sh("client", "wget -q -O - http://web/plain") == "no program"


async def test_what_was_asked_of_a_service_that_ended_is_asked_of_the_next_one(team: Team) -> None:
    web = team.runs["web"]
    await team.vm.stub.PauseRun(pb.PauseRunRequest(run=web))
    asking = "rm -f /tmp/answer; wget -q -O /tmp/answer http://web/plain >/dev/null 2>&1 &"
    await team.sh("client", asking)
    await team.sh("client", "until grep -q '01014D7F:0050 02 ' /proc/net/tcp; do sleep 0.1; done")

    await team.serve()
    await team.reachable("client")
    await team.vm.stub.ResumeRun(pb.ResumeRunRequest(run=web))

    answer = "until grep . /tmp/answer 2>/dev/null; do sleep 0.1; done"
    assert await team.sh("client", answer) == "no program"


async def test_a_peer_that_has_ended_is_refused(team: Team) -> None:
    await team.vm.stub.StopRun(pb.StopRunRequest(run=team.runs["web"]))

    assert "Connection refused" in await team.sh("client", "nc web 80 </dev/null")
