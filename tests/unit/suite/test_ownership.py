import asyncio
import os
import socket
from pathlib import Path

import pytest

from services.chassis.locks import owner_lock
from services.core.errors import InUse
from services.suite.ownership import announce, suite_ownership


async def test_a_draining_suite_is_waited_for(short_directory: Path) -> None:
    lock, listening = short_directory / "lock", short_directory / "sock"
    got = asyncio.Event()

    async def next_suite() -> None:
        async with suite_ownership(lock, listening, patience=10):
            got.set()

    with owner_lock(lock, what="the old suite"):
        waiting = asyncio.ensure_future(next_suite())
        await asyncio.sleep(0.1)
        assert not got.is_set()
    await waiting

    assert got.is_set()


async def test_a_serving_suite_is_not_waited_for(short_directory: Path) -> None:
    lock, listening = short_directory / "lock", short_directory / "sock"
    with socket.socket(socket.AF_UNIX) as served, owner_lock(lock, what="the suite"):
        served.bind(str(listening))
        served.listen()
        async with asyncio.timeout(5):
            with pytest.raises(InUse):
                async with suite_ownership(lock, listening, patience=60):
                    pass


async def test_patience_ends(short_directory: Path) -> None:
    lock = short_directory / "lock"
    with owner_lock(lock, what="the old suite"), pytest.raises(InUse):
        async with suite_ownership(lock, short_directory / "sock", patience=0.1):
            pass


async def test_an_error_of_the_block_gives_the_lock_up(short_directory: Path) -> None:
    lock = short_directory / "lock"
    with pytest.raises(KeyError):
        async with suite_ownership(lock, short_directory / "sock", patience=0):
            raise KeyError
    with owner_lock(lock, what="the next suite"):
        pass


def test_the_announcement_is_private(tmp_path: Path) -> None:
    announce(tmp_path / "suite.version", pid=os.getpid(), version="1.2.3")

    assert (tmp_path / "suite.version").read_text() == f"{os.getpid()} 1.2.3\n"
    assert (tmp_path / "suite.version").stat().st_mode & 0o777 == 0o600
