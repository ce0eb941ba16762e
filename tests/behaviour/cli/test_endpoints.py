"""A client whose services are somewhere else: it starts nothing, waits, and says what it sees."""

import asyncio
import json
from pathlib import Path

import pytest

from lns.client.connection.endpoints import wait_until_serving
from services.chassis.channel import open_channel
from services.chassis.server import running_server
from services.chassis.settings import PeerSettings, ServerSettings
from services.core.errors import ServiceUnavailable
from tests.support.echo import echo_service
from tests.support.lns_command import Lns


@pytest.fixture
def elsewhere(short_directory: Path) -> Lns:
    """A user whose VM runner is at a socket where nobody listens yet."""
    user = short_directory / "user"
    user.mkdir()
    variables = {"LNS_ENDPOINT_VM_RUNNER": f"unix:{short_directory}/vm.sock"}
    return Lns(home=short_directory / "state", user=user, variables=variables)


def test_a_service_that_is_gone_is_named_and_nothing_is_started(elsewhere: Lns) -> None:
    result = elsewhere.run("ps")

    assert result.returncode == 1
    assert "why: nobody listens for vm_runner at unix:" in result.stderr
    assert not elsewhere.home.exists()


def test_a_service_without_an_address_is_not_started_beside_the_others(elsewhere: Lns) -> None:
    result = elsewhere.run("image", "ls")

    assert result.returncode == 1
    assert "endpoint-registry-gateway is not configured" in result.stderr
    assert "lns config set endpoint-registry-gateway HOST:PORT" in result.stderr
    assert not (elsewhere.home / "run" / "lns.sock").exists()


async def test_the_status_tells_of_configured_endpoints(elsewhere: Lns) -> None:
    target = elsewhere.variables["LNS_ENDPOINT_VM_RUNNER"]

    gone = await asyncio.to_thread(elsewhere.run, "service", "status")
    async with running_server(ServerSettings(listen=(target,), grace=0.1), [echo_service()]):
        there = await asyncio.to_thread(elsewhere.run, "service", "status", "--format", "json")

    assert gone.returncode == 1
    assert f"vm_runner:         not serving  {target}" in gone.stdout
    assert "why: nobody listens" in gone.stdout
    assert there.returncode == 0, there.stderr
    assert [(one["service"], one["is_serving"]) for one in json.loads(there.stdout)] == [
        ("vm_runner", True)
    ]


async def test_a_client_waits_as_long_as_a_restart_takes(short_directory: Path) -> None:
    target, notes = f"unix:{short_directory}/s", list[str]()
    waits = asyncio.Event()

    def note(line: str) -> None:
        notes.append(line)
        waits.set()

    settings = ServerSettings(listen=(target,), grace=0.1)

    async with open_channel(PeerSettings(target=target)) as channel:
        waiting = asyncio.ensure_future(
            wait_until_serving({target: channel}, seconds=20, note=note)
        )
        await waits.wait()
        async with running_server(settings, [echo_service()]):
            await waiting

    assert notes == [f"lns: lost the services at {target}; waiting up to 20 s for them"]


async def test_a_client_gives_up_with_the_cause(short_directory: Path) -> None:
    target = f"unix:{short_directory}/s"

    async with open_channel(PeerSettings(target=target)) as channel:
        with pytest.raises(ServiceUnavailable, match="nobody listens"):
            await wait_until_serving({target: channel}, seconds=0.3, note=lambda _: None)
