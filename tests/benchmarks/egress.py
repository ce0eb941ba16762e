"""The egress worker: what a MiB, a request and an idle connection cost it, passed and terminated.

The guest's agent is stood in for by a process that speaks the wire protocol, so that emulation
hides nothing; only the worker's own processor time is counted. The runner's share (deciding,
dialling) is one exchange a connection.
"""

import asyncio
import contextlib
import os
import ssl
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import trustme

from services.core.egress.requests import CompiledRule, RouteRules
from services.vm_runner.egress_worker.orders import Inspection, Mode, UpstreamTrust
from tests.benchmarks.harness import (
    Comparison,
    Comparisons,
    Contender,
    Figure,
    Form,
    Quantity,
    Sample,
)
from tests.support.egress_process import Started, egress_process
from tests.support.egress_tls import over_tls

_MIB = 1 << 20
_SIZE_MIB = 64
_REQUESTS = 200
_IDLE = 200
_MOVED = 100_000
"""Bytes that each idle connection has moved before: buffers keep the size that they once had."""
_TICKS = os.sysconf("SC_CLK_TCK")
_CA = trustme.CA()
_NAME = "origin.test"
_RULES = (RouteRules(rules=(CompiledRule("GET", "/**"),), match=_NAME),)


def egress() -> Comparisons:
    """Throughput, latency and memory of the egress worker, passed through and terminated."""
    with asyncio.Runner() as runner, tempfile.TemporaryDirectory(prefix="lns") as directory:
        bench = _Bench(runner)
        runner.run(bench.start(Path(directory)))
        try:
            yield Comparison(
                title=f"{_SIZE_MIB} MiB through the worker, its processor time",
                contenders=[
                    Contender(name="passed", take=lambda: bench.download("passed")),
                    Contender(name="terminated", take=lambda: bench.download("terminated")),
                ],
                figures=[
                    Figure(
                        contender=name,
                        limit=limit * _SIZE_MIB,
                        form=Form.ABSOLUTE,
                        quantity=Quantity.CPU,
                    )
                    for name, limit in (("passed", 0.010), ("terminated", 0.015))
                ],
                work=(_SIZE_MIB, "MiB"),
            )
            yield Comparison(
                title=f"a small request, median of {_REQUESTS} on one connection",
                notes=["processor time is the worker's; on a busy machine waits are most of it"],
                contenders=[
                    Contender(name=name, take=lambda name=name: bench.requests(name))  # type: ignore[misc] - mypy and defaults
                    for name in ("direct", "passed", "direct TLS", "terminated")
                ],
                figures=[
                    Figure(contender="passed", limit=0.001, against="direct", form=Form.EXCESS),
                    Figure(
                        contender="terminated",
                        limit=0.003,
                        against="direct TLS",
                        form=Form.EXCESS,
                    ),
                ],
            )
            yield Comparison(
                title=f"an idle terminated connection, a share of {_IDLE}",
                contenders=[Contender(name="terminated", take=bench.idle)],
                figures=[
                    Figure(
                        contender="terminated",
                        limit=64 * 1024,
                        form=Form.ABSOLUTE,
                        quantity=Quantity.BYTES,
                    )
                ],
                bytes_are="PSS",
            )
        finally:
            runner.run(bench.stop())


class _Bench:
    """A worker and an origin, and programs that use them."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._stack = contextlib.AsyncExitStack()

    async def start(self, directory: Path) -> None:
        """Starts everything."""
        self._started: Started = await self._stack.enter_async_context(egress_process(directory))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _CA.issue_cert(_NAME).configure_cert(context)
        plain = await self._stack.enter_async_context(_origin(None))
        secure = await self._stack.enter_async_context(_origin(context))
        self._targets = {"direct": plain, "direct TLS": secure}
        runner = self._started.runner
        self._addresses = {
            "passed": runner.add("passed", target=plain, by_address="203.0.113.1"),
            "terminated": runner.add(
                _NAME,
                target=secure,
                mode=Mode.INSPECT,
                inspection=Inspection(rules=_RULES),
                upstream=UpstreamTrust(ca=_CA.cert_pem.bytes().decode()),
            ),
        }

    async def stop(self) -> None:
        """Ends everything."""
        await self._stack.aclose()

    def download(self, name: str) -> Sample:
        """Takes the processor time of a download."""
        return self._runner.run(self._download(name))

    async def _download(self, name: str) -> Sample:
        program = await self._program(name)
        before, begin = self._cpu(), time.perf_counter()
        await program.send(_get(f"/{_SIZE_MIB * _MIB}"))
        left = _SIZE_MIB * _MIB
        while left > 0:
            left -= len(await program.receive())
        sample = Sample(wall=time.perf_counter() - begin, cpu=self._cpu() - before)
        program.close()
        return sample

    def requests(self, name: str) -> Sample:
        """Takes the median of small requests."""
        return self._runner.run(self._requests(name))

    async def _requests(self, name: str) -> Sample:
        program = await self._program(name)
        walls, before = [], self._cpu()
        for _ in range(_REQUESTS):
            begin = time.perf_counter()
            await program.send(_get("/2"))
            while not (await program.receive()).endswith(b"xx"):
                pass
            walls.append(time.perf_counter() - begin)
        program.close()
        return Sample(wall=statistics.median(walls), cpu=(self._cpu() - before) / _REQUESTS)

    def idle(self) -> Sample:
        """Takes the memory of idle connections."""
        return self._runner.run(self._idle())

    async def _idle(self) -> Sample:
        warm = await self._program("terminated")
        before = self._pss()
        programs = [await self._program("terminated") for _ in range(_IDLE)]
        for program in programs:
            await program.send(_get(f"/{_MOVED}"))
            left = _MOVED
            while left > 0:
                left -= len(await program.receive())
        sample = Sample(bytes=(self._pss() - before) // _IDLE)
        for program in (*programs, warm):
            program.close()
        await asyncio.sleep(0.5)
        return sample

    async def _program(self, name: str) -> "_Program":
        context = None
        if "TLS" in name or name == "terminated":
            context = ssl.create_default_context()
            (_CA if "TLS" in name else self._started.runner.authority).configure_trust(context)
        if name in self._targets:
            reader, writer = await asyncio.open_connection(
                *self._targets[name], ssl=context, server_hostname=_NAME if context else None
            )
            return _Program(
                read=lambda: reader.read(65536), write=_writes(writer), close=writer.close
            )
        connection = await self._started.agent.connect(self._addresses[name], 443)
        if context is None:
            return _Program(connection.read, connection.write, connection.reset)
        read, write = await over_tls(connection, context, _NAME)
        return _Program(read, write, connection.reset)

    def _cpu(self) -> float:
        fields = Path(f"/proc/{self._started.process.pid}/stat").read_text().rpartition(")")[2]
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / _TICKS

    def _pss(self) -> int:
        text = Path(f"/proc/{self._started.process.pid}/smaps_rollup").read_text()
        line = next(line for line in text.splitlines() if line.startswith("Pss:"))
        return int(line.split()[1]) * 1024


class _Program:
    """A program that has a connection."""

    def __init__(
        self,
        read: Callable[[], Awaitable[bytes]],
        write: Callable[[bytes], Awaitable[None]],
        close: Callable[[], None],
    ) -> None:
        self.receive = read
        self.send = write
        self.close = close


def _writes(writer: asyncio.StreamWriter) -> Callable[[bytes], Awaitable[None]]:
    async def write(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    return write


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {_NAME}\r\n\r\n".encode()


@contextlib.asynccontextmanager
async def _origin(context: ssl.SSLContext | None) -> AsyncIterator[tuple[str, int]]:
    """Answers a GET with as many bytes as its path says."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.split(b" ")[1][1:])
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                piece = b"x" * min(size, 256 * 1024)
                for _ in range(size // len(piece)):
                    writer.write(piece)
                    await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
