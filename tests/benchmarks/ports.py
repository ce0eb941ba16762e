"""Published ports of a microVM, against the same server on the host's own loopback."""

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from tests.benchmarks.boots import prepared
from tests.benchmarks.harness import Comparison, Comparisons, Contender, Sample
from tests.support import port_server

_MIB = 1 << 20
_SIZE_MIB = 64
_CONNECTIONS = 200
_MESSAGE = 10_000
_INSIDE = 7000
_PATIENCE = 600  # tenths of a second
_SERVER = Path(port_server.__file__)


def ports() -> Comparisons:
    """Throughput of a published port, both ways, and two hundred connections at once."""
    with prepared() as (client, bare, reference), _beside() as beside:
        command = ("python3", "-c", _SERVER.read_text(), str(_INSIDE))
        publish = ("--publish", f"127.0.0.1:0:{_INSIDE}")
        client.ask("run", "--detach", "--name", "ports", *publish, reference, "--", *command)
        shown = client.ask("port", "ports")
        published = int(shown.partition("->")[0].rpartition(":")[2])
        _timed(lambda: _when_up(published))

        def contenders(work: Callable[[int], Awaitable[None]]) -> list[Contender]:
            return [
                Contender(name="on the host", take=lambda: _timed(lambda: work(beside))),
                Contender(name="published by lns", take=lambda: _timed(lambda: work(published))),
            ]

        for title, work in (("out of", _receive), ("into", _send)):
            yield Comparison(
                title=f"{_SIZE_MIB} MiB {title} a server ({bare.accelerator})",
                contenders=contenders(work),
                work=(_SIZE_MIB, "MiB"),
            )
        yield Comparison(
            title=f"{_CONNECTIONS} connections at once, {_MESSAGE} bytes and back each",
            contenders=contenders(_many),
            work=(_CONNECTIONS, "connections"),
        )


def _timed(work: Callable[[], Awaitable[None]]) -> Sample:
    begin = time.perf_counter()
    asyncio.run(_awaited(work()))
    return Sample(wall=time.perf_counter() - begin)


async def _awaited(work: Awaitable[None]) -> None:
    await work


@contextlib.contextmanager
def _beside() -> Iterator[int]:
    """Runs the server on the host; yields its port."""
    with subprocess.Popen(
        [sys.executable, str(_SERVER), "0"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


async def _when_up(port: int) -> None:
    """Asks until the server in the guest answers."""
    for _ in range(_PATIENCE):
        if await _asked(port, b"echo\nup", 2):
            return
        await asyncio.sleep(0.1)
    raise RuntimeError("the server in the guest does not answer")


async def _asked(port: int, said: bytes, size: int) -> bool:
    """Says something; returns whether that many bytes came back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = 0
    with contextlib.suppress(ConnectionError):
        writer.write(said)
        await writer.drain()
        writer.write_eof()
        while data := await reader.read(_MIB):
            received += len(data)
    writer.close()
    return received == size


async def _receive(port: int) -> None:
    if not await _asked(port, b"send %d\n" % (_SIZE_MIB * _MIB), _SIZE_MIB * _MIB):
        raise RuntimeError("the server did not send everything")


async def _send(port: int) -> None:
    size = _SIZE_MIB * _MIB
    if not await _asked(port, b"take %d\n" % size + bytes(size), len(str(size))):
        raise RuntimeError("the server did not take everything")


async def _many(port: int) -> None:
    message = b"echo\n" + bytes(_MESSAGE)
    answers = await asyncio.gather(*(_asked(port, message, _MESSAGE) for _ in range(_CONNECTIONS)))
    if not all(answers):
        raise RuntimeError("a connection did not get its bytes back")
