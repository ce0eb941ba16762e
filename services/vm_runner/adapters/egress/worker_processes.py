"""Egress workers as processes, and the control sockets to them."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import structlog

from services.core.errors import VmFailed
from services.vm_runner.adapters.confinement.cgroups import CgroupLimits, Cgroups
from services.vm_runner.adapters.helper_processes import Helper, HelperProcesses
from services.vm_runner.adapters.socket_channel import short_path
from services.vm_runner.boundary.boundary import EGRESS_PORT
from services.vm_runner.egress_worker import control
from services.vm_runner.egress_worker.orders import ToWorker
from services.vm_runner.egress_worker.reports import ToRunner
from services.vm_runner.vmm_options import UserRange

log = structlog.get_logger()

CONTROL_SOCKET = "egress-control.sock"
_MODULE = "services.vm_runner.egress_worker"
_CONNECT_SECONDS = 5.0
_SEND_SECONDS = 30.0
_LIMITS = CgroupLimits(memory_bytes=512 << 20, cpu_millis=1000, pids=64)


class WorkerProcesses:
    """Starts egress workers and finds them again.

    Args:
        cgroups: where a run's worker has a group of its own.
        users: of which each worker becomes one, where the service is root.
        view_required: whether a worker that can have no view of its own is an error.
    """

    def __init__(self, *, cgroups: Cgroups, users: UserRange, view_required: bool) -> None:
        self._users = users
        self._helpers = HelperProcesses()
        self._cgroups = cgroups
        self._view_required = view_required

    async def adopt(self, run_id: str, directory: Path) -> "ControlLink | None":
        """Returns a link to the worker that an earlier service started, if it lives."""
        if not self._helpers.adopt(_helper(run_id, directory)):
            return None
        return await self._connect(directory)

    async def start(self, run_id: str, directory: Path) -> "ControlLink":
        """Starts the worker of a run and returns a link to it."""
        helper = _helper(run_id, directory)
        await self._helpers.ended(helper)
        with contextlib.ExitStack() as stack:
            try:
                port = stack.enter_context(await _connect_port(directory))
                listener = stack.enter_context(_listen(directory))
            except (OSError, TimeoutError) as error:
                raise VmFailed(f"the guest's egress port cannot be reached: {error}") from error
            given = (port.fileno(), listener.fileno())
            try:
                await self._helpers.start(
                    helper, _MODULE, self._arguments(helper, given), kept=given
                )
            except VmFailed as error:
                message = f"an egress worker cannot be started: {error.message}"
                raise VmFailed(message) from error
        return await self._connect(directory)

    def _arguments(self, helper: Helper, given: tuple[int, int]) -> list[str]:
        cgroups = self._cgroups.make(_group(helper.run_id), _LIMITS)
        user = self._users.first + int(helper.run_id[:8], 16) % self._users.count
        is_root = os.geteuid() == 0
        return [
            "--directory", str(helper.directory),
            "--pid-file", helper.pid_file.name,
            "--port-descriptor", str(given[0]),
            "--control-descriptor", str(given[1]),
            *(f"--cgroup={group}" for group in cgroups),
            *([f"--uid={user}", f"--gid={user}"] if is_root else []),
            *(["--view-required"] if self._view_required else []),
        ]  # fmt: skip

    async def _connect(self, directory: Path) -> "ControlLink":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.setblocking(False)
        try:
            with short_path(directory / CONTROL_SOCKET) as path:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await asyncio.get_running_loop().sock_connect(connection, path)
        except (OSError, TimeoutError) as error:
            connection.close()
            raise VmFailed(f"an egress worker cannot be reached: {error}") from error
        return ControlLink(connection)

    async def ended(self, run_id: str, directory: Path) -> None:
        """Returns when the worker of a run whose microVM has ended is gone."""
        await self._helpers.ended(_helper(run_id, directory))
        (directory / CONTROL_SOCKET).unlink(missing_ok=True)
        self._cgroups.remove(_group(run_id))


class ControlLink:
    """The control socket of a live worker."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = asyncio.Lock()
        self._loop = asyncio.get_running_loop()

    async def messages(self) -> AsyncIterator[ToRunner]:
        """Yields what the worker says until the socket ends."""
        while True:
            try:
                data = self._connection.recv(control.MESSAGE_MAX + 1)
            except BlockingIOError:
                await _ready(self._loop.add_reader, self._loop.remove_reader, self._connection)
                continue
            except ConnectionError:
                return
            if not data:
                return
            yield control.decode_to_runner(data)

    async def send(self, message: ToWorker, connection: socket.socket | None = None) -> None:
        """Sends a message, with a connection beside it."""
        data = control.encode(message)
        descriptors = [connection.fileno()] if connection is not None else []
        async with self._sending, asyncio.timeout(_SEND_SECONDS):
            while True:
                try:
                    socket.send_fds(self._connection, [data], descriptors)
                except BlockingIOError:
                    await _ready(self._loop.add_writer, self._loop.remove_writer, self._connection)
                else:
                    return

    async def close(self) -> None:
        """Lets the worker alone."""
        with contextlib.suppress(OSError):
            self._connection.close()


async def _connect_port(directory: Path) -> socket.socket:
    """Connects to the guest's egress port, which has one connection at a time."""
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    try:
        with short_path(directory / EGRESS_PORT.socket) as path:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _listen(directory: Path) -> socket.socket:
    """Listens where this runner, and those after it, connect to the worker."""
    (directory / CONTROL_SOCKET).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with short_path(directory / CONTROL_SOCKET) as path:
            listener.bind(path)
        (directory / CONTROL_SOCKET).chmod(0o600)
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


async def _ready(
    add: Callable[..., None], remove: Callable[[int], bool], connection: socket.socket
) -> None:
    """Waits until a socket can be read or written."""
    ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    descriptor = connection.fileno()
    if descriptor < 0:
        raise ConnectionAbortedError("the control socket was closed")
    add(descriptor, _resolve, ready)
    try:
        await ready
    finally:
        remove(descriptor)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _helper(run_id: str, directory: Path) -> Helper:
    return Helper(run_id=run_id, directory=directory, name="egress")


def _group(run_id: str) -> str:
    return f"{run_id}-egress"
