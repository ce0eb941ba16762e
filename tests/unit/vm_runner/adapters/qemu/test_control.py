"""The control socket of QEMU, against a QEMU that is written out by hand here."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.core.errors import GuestUnreachable
from services.vm_runner.adapters.qemu.control import QemuControl
from tests.support.eventually import eventually

GREETING = {"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}, "capabilities": []}}


class Qemu:
    """Answers `query-status`; notes what it is asked and how often a client connects."""

    def __init__(self) -> None:
        self.status = "running"
        self.asked: list[str] = []
        self.connections: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        self.say(GREETING)
        while data := await reader.read(4096):  # a request at a time, without a line's end
            request = json.loads(data)
            self.asked.append(request["execute"])
            answer = {"status": self.status} if request["execute"] == "query-status" else {}
            reply = {"return": answer}
            self.say(reply | {"id": request["id"]} if "id" in request else reply)
        writer.close()

    def say(self, message: dict[str, Any]) -> None:
        self.connections[-1].write(json.dumps(message).encode() + b"\r\n")

    def block_error(self, action: str) -> None:
        data = {"device": "", "operation": "write", "action": action, "nospace": True}
        moment = {"seconds": 1, "microseconds": 0}
        self.say({"event": "BLOCK_IO_ERROR", "data": data, "timestamp": moment})


@contextlib.asynccontextmanager
async def a_qemu(directory: Path) -> AsyncIterator[tuple[Qemu, QemuControl]]:
    qemu = Qemu()
    server = await asyncio.start_unix_server(qemu.serve, directory / "qmp.sock")
    control = QemuControl(directory)
    try:
        yield qemu, control
    finally:
        await control.leave()
        server.close()


async def test_commands_share_one_connection(short_directory: Path) -> None:
    async with a_qemu(short_directory) as (qemu, control):
        await control.execute("stop")
        await control.execute("cont")
        assert await control.execute("query-status") == {"status": "running"}
        assert qemu.asked == ["qmp_capabilities", "stop", "cont", "query-status"]
        assert len(qemu.connections) == 1


async def test_a_guest_that_is_stopped_for_want_of_room_is_noticed(short_directory: Path) -> None:
    async with a_qemu(short_directory) as (qemu, control):
        waiting = asyncio.create_task(control.wait_out_of_room())
        await eventually(lambda: "query-status" in qemu.asked)
        qemu.block_error("report")  # the guest gets the error, and goes on
        await eventually(lambda: qemu.asked.count("query-status") == 2)
        assert not waiting.done()
        qemu.status = "io-error"
        qemu.block_error("stop")
        await waiting


async def test_one_that_was_stopped_before_anybody_listened_is_noticed(
    short_directory: Path,
) -> None:
    async with a_qemu(short_directory) as (qemu, control):
        qemu.status = "io-error"
        async with asyncio.timeout(10):
            await control.wait_out_of_room()


async def test_errors_of_before_a_resume_are_not_taken_for_new_ones(short_directory: Path) -> None:
    async with a_qemu(short_directory) as (qemu, control):
        qemu.status = "io-error"
        await control.wait_out_of_room()
        qemu.block_error("stop")
        qemu.block_error("stop")
        qemu.status = "running"
        await control.execute("cont")
        waiting = asyncio.create_task(control.wait_out_of_room())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_connection_that_broke_is_an_error_once_and_then_made_anew(
    short_directory: Path,
) -> None:
    async with a_qemu(short_directory) as (qemu, control):
        waiting = asyncio.create_task(control.wait_out_of_room())
        await eventually(lambda: "query-status" in qemu.asked)
        qemu.connections[-1].close()
        with pytest.raises(GuestUnreachable):
            await waiting
        assert await control.execute("query-status") == {"status": "running"}
        assert len(qemu.connections) == 2


async def test_a_qemu_that_is_gone_is_not_reachable(tmp_path: Path) -> None:
    control = QemuControl(tmp_path)
    with pytest.raises(GuestUnreachable):
        await control.execute("query-status")
    with pytest.raises(GuestUnreachable):
        await control.wait_out_of_room()
