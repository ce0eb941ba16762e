"""Waiting for what happens soon, without sleeping for what takes long."""

import asyncio
import time
from collections.abc import Callable


async def eventually(holds: Callable[[], bool], *, within: float = 10.0) -> None:
    """Returns when `holds()` is true; fails the test when it is not within that many seconds."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, f"not within {within} s: {holds}"
        await asyncio.sleep(0.005)
