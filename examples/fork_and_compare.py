"""An agent is warmed up once and tried ten times: each try goes on from the same moment.

    python examples/fork_and_compare.py localhost:5000/images/python:1 10

Here the agent looks for the lowest point of a curve from where chance puts it. What takes long is
done before the snapshot; what is to differ is asked of the kernel behind it.
"""

import asyncio
import json
import sys

from lns.client import Client, Process

AGENT = """
import json, math, os, sys
curve = [math.sin(x / 40) + math.cos(x / 17) + x / 2000 for x in range(4096)]  # takes long
print("warm", flush=True)
for line in sys.stdin:
    at = int.from_bytes(os.urandom(2)) % len(curve)  # not `random`: its state is in the snapshot
    begin = at
    while lower := [n for n in (at - 1, at + 1) if 0 <= n < len(curve) and curve[n] < curve[at]]:
        at = min(lower, key=curve.__getitem__)
    found = {"begin": begin, "found": at, "height": round(curve[at], 3)}
    print(json.dumps({"task": line.strip(), **found}), flush=True)
"""


async def until_line(agent: Process, text: str) -> str:
    """Returns the first line of an agent's output that has a text in it."""
    said = b""
    async for output in agent:
        said += output.data
        *lines, _ = said.decode().split("\n")
        for line in lines:
            if text in line:
                return line
    raise SystemExit("the agent has ended")


async def attempt(lns: Client, warm: str, number: int, task: str) -> dict[str, object]:
    """Has an agent go on from a snapshot with a task, and returns what it found."""
    fork = await lns.fork(warm, name=f"{warm}-{number}")
    async with fork as run, run.attach(replay=True) as agent:
        await agent.write(f"{task}\n".encode())
        return {"run": run.name, **json.loads(await until_line(agent, task))}


def height_of(one: dict[str, object]) -> float:
    """Returns how high a try ended."""
    return float(str(one["height"]))


async def main(image: str, count: str = "10") -> None:
    """Prints what each try found, and the best of them."""
    async with Client() as lns:
        warming = await lns.run(image, "python3", "-c", AGENT, stdin=True, memory=256)
        async with warming as run:
            async with run.attach(replay=True) as agent:
                await until_line(agent, "warm")
            warm = await run.snapshot()
        try:
            async with asyncio.TaskGroup() as group:  # one that fails ends them all
                tasks = [
                    group.create_task(attempt(lns, warm, number, "go down"))
                    for number in range(int(count))
                ]
        finally:
            await lns.remove_snapshot(warm)
    tries = [task.result() for task in tasks]
    for one in tries:
        print(json.dumps(one))
    print("best:", min(tries, key=height_of)["run"])


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
