"""An agent harness runs its tool calls in a microVM: what a model writes never runs on the host.

    python examples/tools_in_a_sandbox.py localhost:5000/images/python:1

The loop is that of any agent; here the model is a list of calls.
"""

import asyncio
import json
import sys

from lns.client import Client, Run

CALLS: list[dict[str, object]] = [
    {
        "tool": "write_file",
        "path": "/work/fib.py",
        "content": "a, b = 0, 1\nfor _ in range(10):\n    print(a, end=' ')\n    a, b = b, a + b\n",
    },
    {"tool": "run", "command": ["python3", "/work/fib.py"]},
    {"tool": "run", "command": ["cat", "/no/such/file"]},
]


async def call(run: Run, request: dict[str, object]) -> dict[str, object]:
    """Does one tool call in the sandbox; returns what the model is answered."""
    match request:
        case {"tool": "write_file", "path": str(path), "content": str(content)}:
            script = 'mkdir -p "$(dirname "$1")" && cat > "$1"'
            done = await run.exec("sh", "-c", script, "sh", path, given=content.encode())
        case {"tool": "run", "command": list(command)}:
            done = await run.exec(*map(str, command), within=60, max_output=100_000)
        case _:
            return {"error": "no such tool"}
    return {"code": done.code, "output": done.text, "error": done.stderr.decode("utf-8", "replace")}


async def main(image: str) -> None:
    """Runs every call in one microVM, which ends with the program."""
    async with Client() as lns, await lns.run(image, "sleep", "infinity", memory=256) as run:
        for request in CALLS:
            print(json.dumps(await call(run, request)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
