"""Servers that programs of a guest speak more than HTTP with: git over ssh, gRPC both ways."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import grpc

from tests.support.program_servers import ProgramServers


@contextlib.contextmanager
def ssh_server(root: Path, key: str) -> Iterator[int]:
    """Serves git's programs for the repositories below `root` to who has a key; yields the port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def serve(process: "asyncssh.SSHServerProcess[bytes]") -> None:
        program, _, path = (process.command or "").partition(" ")
        if program not in ("git-upload-pack", "git-receive-pack"):
            process.exit(127)
            return
        repository = root / path.strip("'").lstrip("/")
        child = await asyncio.create_subprocess_exec(
            "git", program.removeprefix("git-"), str(repository),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        await process.redirect(stdin=child.stdin, stdout=child.stdout)
        process.exit(await child.wait())
        await process.wait_closed()  # which awaits what was begun for its streams

    async def start() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen(
            "127.0.0.1", 0, encoding=None, process_factory=serve,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            authorized_client_keys=asyncssh.import_authorized_keys(key),
        )  # fmt: skip

    acceptor = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield acceptor.get_port()
    finally:

        async def stop() -> None:
            acceptor.close()
            await acceptor.wait_closed()

        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.contextmanager
def grpc_server(servers: ProgramServers) -> Iterator[int]:
    """Serves `/field.Field/Talk`, which answers each message and counts them; yields its port."""

    def talk(messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        count = 0
        for count, message in enumerate(messages, 1):  # noqa: B007 - the last one is said below
            yield b"heard " + message
        context.set_trailing_metadata((("messages", str(count)),))

    methods = {"Talk": grpc.stream_stream_rpc_method_handler(talk)}
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("field.Field", methods),))
    certificate = servers.authority.issue_cert("grpc.test")
    chain = b"".join(one.bytes() for one in certificate.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(certificate.private_key_pem.bytes(), chain)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()
