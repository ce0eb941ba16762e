"""A server for published ports, as a program of its own: `python3 port_server.py PORT`.

A connection says in its first line what it wants: `take N`, N bytes follow and their number is
answered; `send N`, N bytes are answered; `echo`, what follows comes back until its end.
"""

import asyncio
import sys

_CHUNK = 65536


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    wish, _, amount = (await reader.readline()).decode().strip().partition(" ")
    if wish == "take":
        left = int(amount)
        while left > 0 and (data := await reader.read(_CHUNK)):
            left -= len(data)
        writer.write(str(int(amount) - left).encode())
    elif wish == "send":
        for at in range(0, int(amount), _CHUNK):
            writer.write(bytes(min(_CHUNK, int(amount) - at)))
            await writer.drain()
    else:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _main() -> None:
    port = int(sys.argv[1])
    server = await asyncio.start_server(_serve, "127.0.0.1", port, backlog=512)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
