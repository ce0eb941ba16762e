"""The four services as four processes, each with its own socket and settings, as in a cluster."""

import asyncio
import contextlib
from pathlib import Path

import yaml

from services.chassis.settings import PeerSettings
from tests.support.lns_command import Lns
from tests.support.processes import serving, started

SERVICES = ("registry_gateway", "materializer", "resolver", "vm_runner")


async def test_a_run_goes_through_four_processes(other: Lns, image: str) -> None:
    other.home.mkdir(mode=0o700)
    sockets = {name: f"unix:{other.home}/{name}.sock" for name in SERVICES}
    peers = {
        "resolver": {"registry_gateway": {"target": sockets["registry_gateway"]}},
        "materializer": {"registry_gateway": {"target": sockets["registry_gateway"]}},
        "vm_runner": {"materializer": {"target": sockets["materializer"]}},
    }
    variables = {f"LNS_ENDPOINT_{name.upper()}": socket for name, socket in sockets.items()}
    client = Lns(home=other.home, user=other.user, variables=variables)
    async with contextlib.AsyncExitStack() as stack:
        for name in SERVICES:
            settings = {"server": {"listen": [sockets[name]]}, name: peers.get(name, {})}
            config = other.user / f"{name}.yaml"
            await asyncio.to_thread(config.write_text, yaml.safe_dump(settings))
            await stack.enter_async_context(
                started(f"services.{name}", "--config", str(config), environment=other.environment)
            )
        for socket in sockets.values():
            await serving(PeerSettings(target=socket))

        result = await asyncio.to_thread(
            client.run, "run", "--rm", image, "--", "sh", "-c", "echo four; exit 4"
        )

    assert (result.returncode, result.stdout) == (4, "four\n"), result.stderr
    assert not suite_was_started(other.home)


def suite_was_started(home: Path) -> bool:
    return (home / "run" / "suite.lock").exists()
