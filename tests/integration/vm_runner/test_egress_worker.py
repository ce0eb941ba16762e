"""The egress worker as a process of its own: what it does, and what it cannot do any more."""

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from services.vm_runner.egress_worker.orders import Mode, Secret, Stop, UpstreamTrust
from services.vm_runner.egress_worker.reports import Closed, Hello
from tests.support.egress_process import NOBODY, Started, egress_process
from tests.support.egress_tls import over_tls
from tests.support.egress_world import leaf_of

pytestmark = pytest.mark.integration


@pytest.fixture
async def started(short_directory: Path) -> AsyncIterator[Started]:
    async with egress_process(short_directory) as started:
        yield started


async def test_a_worker_carries_what_its_runner_grants_and_ends_with_its_run(
    started: Started,
) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        started.runner.add("echo.test", target=server.sockets[0].getsockname())
        connection = await started.agent.connect("198.18.0.1", 7)
        await connection.write(b"\x00hello")
        assert await connection.read() == b"\x00hello"
        assert await connection.read() == b""
        connection.finish()
        closed = await started.runner.wait_for(Closed)
    assert (closed.sent, closed.received) == (6, 6)

    started.runner.say(Stop())
    assert await asyncio.to_thread(started.process.wait, 20) == 0


@pytest.mark.parametrize(
    ("is_trusted", "is_asked"), [(True, False), (False, False), (True, True), (False, True)]
)
async def test_a_confined_worker_has_loaded_all_that_it_needs(
    started: Started, is_trusted: bool, is_asked: bool
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("xn--bcher-kva.test").configure_cert(context)
    identity = leaf_of(authority.issue_cert("client.test")) if is_asked else None
    if is_asked:
        authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        started.runner.add(
            "xn--bcher-kva.test",
            target=server.sockets[0].getsockname(),
            mode=Mode.INSPECT,
            upstream=UpstreamTrust(
                ca=authority.cert_pem.bytes().decode() if is_trusted else "", identity=identity
            ),
        )
        connection = await started.agent.connect("198.18.0.1", 443)
        trust = ssl.create_default_context()
        started.runner.authority.configure_trust(trust)
        read, write = await over_tls(connection, trust, "xn--bcher-kva.test")
        await write("GET / HTTP/1.1\r\nHost: bücher.test\r\n\r\n".encode("latin-1"))
        reply = await read()
    # A host in latin-1 is the same host; where it is not trusted the answer is the worker's own.
    assert reply.split(b" ")[1] == (b"200" if is_trusted else b"502")


async def test_a_worker_outlives_its_runner_and_ends_with_its_guest(started: Started) -> None:
    await started.runner.disconnect()
    started.runner.reports.clear()
    await started.runner.connect()
    await started.runner.wait_for(Hello)

    started.agent._writer.transport.abort()

    await asyncio.to_thread(started.process.wait, 20)


async def test_a_process_shows_no_secret_and_has_no_more_than_it_needs(started: Started) -> None:
    started.runner.say(Secret(credential="c", value="hush-hush-hush"))

    look_at(Path("/proc", str(started.process.pid)))


def can_lock_memory() -> bool:
    """Says whether this machine lets a process lock as much memory as it likes."""
    tried = "import resource; resource.setrlimit(resource.RLIMIT_MEMLOCK, (-1, -1))"
    done = subprocess.run([sys.executable, "-c", tried], check=False, stderr=subprocess.DEVNULL)
    return not done.returncode


def look_at(process: Path) -> None:
    assert b"hush" not in (process / "cmdline").read_bytes()
    if os.geteuid() == 0:
        assert b"hush" not in (process / "environ").read_bytes()
        status = dict(
            line.split(":\t", 1) for line in (process / "status").read_text().splitlines()
        )
        assert status["Uid"].split() == [str(NOBODY)] * 4
        assert int(status["CapEff"], 16) == 0
        assert status["Seccomp"] == "2"
        assert status["NoNewPrivs"] == "1"
        descriptors = list((process / "fd").iterdir())
        assert len(descriptors) < 16
        # What it holds is not swapped, where this machine lets anybody lock that much.
        assert (int(status["VmLck"].split()[0]) > 0) is can_lock_memory()
        assert (process / "limits").read_text().split("Max core file size")[1].split()[0] == "0"
        assert (process / "mem").stat().st_uid == 0  # it is not dumpable


_TRIES = """
import ctypes, json, os, resource, socket, sys
from services.vm_runner.egress_worker.ground import confine
import fcntl, signal, mmap, subprocess
out = os.dup(1)
pair = socket.socketpair()
confine(uid=65534 if os.geteuid() == 0 else os.geteuid(), gids=(65534,), view_required=False)
def code(act):
    try:
        act()
    except OSError as error:
        return error.errno
    except Exception as error:
        return type(error).__name__
    return 0
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    if libc.syscall(number, *args) < 0:
        raise OSError(ctypes.get_errno(), "")
tries = {
    "open": lambda: open("/etc/passwd"),
    "open itself": lambda: open("/proc/self/mem"),
    "make a file": lambda: open("/tmp/x", "w"),
    "socket": lambda: socket.socket(),
    "unix socket": lambda: socket.socket(socket.AF_UNIX),
    "packet socket": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
    "vsock": lambda: socket.socket(socket.AF_VSOCK),
    "connect": lambda: pair[0].connect("/run/x"),
    "bind": lambda: pair[0].bind("/run/x"),
    "fork": os.fork,
    "execve": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(1, 0),
    "ptrace": lambda: call(101, 16, os.getppid(), 0, 0),
    "io_uring": lambda: call(425, 8, 0),
    "unshare": lambda: os.unshare(0x10000000) if hasattr(os, "unshare") else call(272, 0x10000000),
    "setuid": lambda: os.setuid(0),
    "memfd": lambda: os.memfd_create("x"),
    "bpf": lambda: call(321, 0, 0, 0),
    "pidfd_getfd": lambda: call(438, 3, 0, 0),
    "prctl": lambda: call(157, 4, 1, 0, 0, 0),
    "unlink": lambda: os.unlink("/tmp/x"),
}
results = {name: code(act) for name, act in tries.items()}
results["core"] = resource.getrlimit(resource.RLIMIT_CORE)[1]
os.write(out, json.dumps(results).encode())
"""


def test_code_in_a_worker_reaches_nothing_that_it_was_not_handed(short_directory: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _TRIES],
        capture_output=True,
        cwd=short_directory,
        env={"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *filter(None, sys.path)])},
        check=True,
        timeout=50,
    )

    results = json.loads(done.stdout)
    assert results.pop("core") == 0
    assert [name for name, number in results.items() if number in (0, None)] == []
