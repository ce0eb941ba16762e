"""A service decides what agents may reach: it allows what its own list names, and denies the rest.

    python examples/approve_headless.py localhost:5000/images/python:1

Each answer holds for that run only; `always=True` would write a rule into its policy file.
"""

import asyncio
import sys

from lns.client import Client, Run

ALLOWED = {"models.example.com", "packages.example.com"}
PROBE = """
import socket
for host in ("models.example.com", "collect.example.net"):
    try:
        socket.create_connection((host, 443), 30).close()
    except OSError as error:
        print(host, error.strerror or error)
"""


async def decide(lns: Client, run: Run) -> None:
    """Answers what a run asks for, until it is cancelled."""
    async for approval in lns.watch_approvals(run.id):
        if approval.host in ALLOWED:
            await lns.allow(approval)
        else:
            await lns.deny(approval)
        print(f"{approval.host}: {'allowed' if approval.host in ALLOWED else 'denied'}")


async def main(image: str) -> None:
    """Runs a program that tries two hosts."""
    async with Client() as lns, await lns.run(image, "sleep", "infinity", memory=256) as run:
        deciding = asyncio.create_task(decide(lns, run))
        print((await run.exec("python3", "-c", PROBE)).text, end="")
        deciding.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
