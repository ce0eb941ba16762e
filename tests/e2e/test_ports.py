"""Published ports of a real microVM, with many connections at once."""

import asyncio
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import port_server
from tests.support.lns_command import Lns

CONNECTIONS = 200
SERVER = Path(port_server.__file__).read_text()
INSIDE = 7000


async def echoed(port: int, number: int) -> bool:
    """Sends bytes of its own, beside reading; returns whether they came back."""
    data = random.Random(number).randbytes(1000 + 500 * number)  # noqa: S311  # repeatable
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        writer.write(b"echo\n")
        for at in range(0, len(data), 7919):
            writer.write(data[at : at + 7919])
            await writer.drain()
        writer.write_eof()

    async with asyncio.TaskGroup() as ways:
        ways.create_task(send())
        received = ways.create_task(reader.read(-1))
    writer.close()
    return hashlib.sha256(received.result()).digest() == hashlib.sha256(data).digest()


@pytest.fixture
def port(lns: Lns, image: str) -> Iterator[int]:
    """The host's port of a server in a microVM."""
    command = ("python3", "-c", SERVER, str(INSIDE))
    options = ("-d", "-q", "--name", "ports", "-p", f"127.0.0.1:0:{INSIDE}")
    lns.ok("run", *options, image, "--", *command)
    try:
        with lns.start("logs", "-f", "ports") as logs:
            assert logs.stdout is not None
            assert logs.stdout.readline() == f"{INSIDE}\n"
            logs.kill()
        yield int(lns.ok("port", "ports").partition("->")[0].rpartition(":")[2])
    finally:
        lns.ok("rm", "-f", "ports")


@pytest.mark.timeout(300)
async def test_two_hundred_connections_at_once_get_their_own_bytes(port: int) -> None:
    results = await asyncio.gather(*(echoed(port, number) for number in range(CONNECTIONS)))

    assert results == [True] * CONNECTIONS
    assert await echoed(port, CONNECTIONS)
