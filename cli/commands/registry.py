"""`lns registry`: a registry of one's own, for the first steps."""

import asyncio
import shutil
import time

import click

from cli.context import Context, subcommand
from services.core.errors import HostUnready, RequestInvalid

_IMAGE = "registry:2"
_NAME = "lns-registry"
_VOLUME = "lns-registry"
_WAIT_SECONDS = 30.0


@click.group("registry", short_help="Start and stop a registry of your own")
def registry() -> None:
    """Run a registry of your own on this machine: registry:2, in Docker."""


@subcommand(registry, "start", doing="start a registry")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=5000,
    show_default=True,
    help="Port of localhost that it listens at.",
)
async def registry_start(context: Context, port: int) -> None:
    """Start a registry at localhost; what is pushed stays when it is stopped."""
    docker = _docker()
    code, state = await _call(docker, "inspect", "-f", "{{.State.Running}}", _NAME)
    if code == 0 and state == "true":
        context.note("it runs already")
    else:
        if code == 0:
            await _checked(docker, "rm", "-f", _NAME)
        await _checked(
            docker,
            *("run", "-d", "--name", _NAME, "--restart", "unless-stopped"),
            *("-p", f"127.0.0.1:{port}:5000", "-v", f"{_VOLUME}:/var/lib/registry", _IMAGE),
        )
    at = (await _checked(docker, "port", _NAME, "5000/tcp")).splitlines()[0].rpartition(":")[2]
    await _answers(int(at))
    context.write(f"localhost:{at}")


@subcommand(registry, "stop", doing="stop the registry")
@click.option("--remove", is_flag=True, help="Remove what was pushed to it, too.")
async def registry_stop(context: Context, remove: bool) -> None:
    """Stop the registry that `lns registry start` started."""
    docker = _docker()
    code, _ = await _call(docker, "inspect", "-f", "{{.Id}}", _NAME)
    if code:
        raise RequestInvalid("no registry was started", hint="`lns registry start` starts one")
    await _checked(docker, "rm", "-f", _NAME)
    if remove:
        await _checked(docker, "volume", "rm", _VOLUME)
    context.write(_NAME)


def _docker() -> str:
    docker = shutil.which("docker")
    if docker is None:
        raise HostUnready(
            "docker is not installed; lns needs it to run registry:2",
            hint="install Docker; or run any OCI registry, zot or distribution for example, and"
            " push to its host:port; or run files without a registry: lns run ./agent.yaml",
        )
    return docker


async def _call(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 300)
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise
    return process.returncode or 0, output.decode("utf-8", "replace").strip()


async def _checked(*arguments: str) -> str:
    code, output = await _call(*arguments)
    if code:
        raise _failed(output or f"it ended with {code}")
    return output


def _failed(output: str) -> HostUnready:
    """Returns the error for what docker wrote; its last line often only points to its --help."""
    lines = [line for line in output.splitlines() if line and "--help" not in line]
    hint = "is its daemon running, and are you permitted to use it? `docker info` says"
    if "already allocated" in output or "address already in use" in output:
        hint = "choose another port: lns registry start --port 5001"
    elif "Unable to find image" in output:
        hint = f"docker could not fetch {_IMAGE}: load it with `docker load`, or check the network"
    reason = (lines or [output])[-1].removeprefix("docker: ")
    return HostUnready(f"docker failed: {reason[:300]}", hint=hint)


async def _answers(port: int) -> None:
    """Waits until the registry answers."""
    end = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 2)
            writer.write(b"GET /v2/ HTTP/1.0\r\nHost: localhost\r\n\r\n")
            line = await asyncio.wait_for(reader.readline(), 2)
            writer.close()
            if line.split()[1:2] == [b"200"]:
                return
        except (OSError, TimeoutError):
            pass
        if time.monotonic() > end:
            raise HostUnready(
                "the registry was started and does not answer",
                hint=f"`docker logs {_NAME}` says why",
            )
        await asyncio.sleep(0.1)
