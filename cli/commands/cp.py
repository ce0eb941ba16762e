"""`lns cp`: files into and out of a run."""

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import click
from lns.vm.v1 import vm_service_pb2 as pb

from cli import terminal
from cli.archive import pack, unpack
from cli.context import Context, command
from cli.run.console import STDOUT
from cli.run.copy_forms import Kind, Place, landing
from lns.client.connection.session import Peer, Session, open_session
from services.chassis.streams import CHUNK_BYTES
from services.core.errors import RequestInvalid

_STREAM = "-"
_KINDS = {
    pb.StatPathResponse.KIND_NONE: Kind.NOTHING,
    pb.StatPathResponse.KIND_FILE: Kind.FILE,
    pb.StatPathResponse.KIND_DIRECTORY: Kind.DIRECTORY,
}
_ROOT_NAME = "root"
"""What the guest agent calls `/`."""
_IN_RUN = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class InRun:
    """A path in a run, as it was written."""

    run: str
    path: str


@command("cp", doing="copy {source}")
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
async def cp(context: Context, source: str, target: str) -> None:
    """Copy SOURCE to TARGET, one of which is RUN:/PATH.

    A SOURCE is copied into a TARGET that is a directory, and merged with it; a TARGET that does not
    exist becomes the copy. SOURCE/. copies what a directory holds. A link is copied as a link, but
    a link that is the TARGET is written through. What is copied into a run belongs to its root
    user. As the place on this machine, - is a tar archive on standard input or output.
    """
    start, end = parse_place(source), parse_place(target)
    if isinstance(end, str) and target == "-" and terminal.terminal_size(STDOUT) is not None:
        raise RequestInvalid(
            "a tar archive cannot be written to a terminal", hint="lns cp RUN:/PATH - >FILE"
        )
    async with open_session(context, Peer.VM_RUNNER) as session:
        if isinstance(start, InRun) and isinstance(end, str):
            await _copy_out(session, start, end)
        elif isinstance(start, str) and isinstance(end, InRun):
            await _copy_in(session, start, end)
        else:
            raise RequestInvalid(
                "exactly one of SOURCE and TARGET has to be in a run",
                hint="write RUN:/path for the one, and a plain path for the other",
            )


def parse_place(text: str) -> InRun | str:
    """Returns the place that `RUN:/path` or a path of this machine names; `./a:b` is of this one.

    Raises:
        RequestInvalid: the path in the run is not absolute.
    """
    match = _IN_RUN.fullmatch(text)
    if match is None:
        return text
    if not match[2].startswith("/"):
        raise RequestInvalid(f"{text!r} is not an absolute path in the run", hint="write RUN:/path")
    return InRun(run=match[1], path=match[2])


async def _copy_out(session: Session, start: InRun, target: str) -> None:
    if target == _STREAM:
        pieces = session.vm.CopyOut(pb.CopyOutRequest(run=start.run, path=start.path))
        async for piece in pieces:
            await terminal.write_all(STDOUT, piece.data)
        return
    source = await _place_in_run(session, start)
    end = await asyncio.to_thread(_place_here, target)
    copy = landing(source, end)
    name = copy.name or _ROOT_NAME
    pieces = session.vm.CopyOut(pb.CopyOutRequest(run=start.run, path=copy.source))
    chunks = _pulled(aiter(pieces), asyncio.get_running_loop())
    await asyncio.to_thread(unpack, chunks, Path(copy.target), name=name)


def _pulled(
    pieces: AsyncIterator[pb.CopyOutResponse], loop: asyncio.AbstractEventLoop
) -> Iterator[bytes]:
    """What a run sends, for a thread beside the event loop: asked for piece by piece."""

    async def following() -> bytes | None:
        piece = await anext(pieces, None)
        return None if piece is None else piece.data

    while (data := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not None:
        yield data


async def _copy_in(session: Session, source: str, end: InRun) -> None:
    if source == _STREAM:
        header = pb.CopyInHeader(run=end.run, path=end.path)
        await session.vm.CopyIn(_steps(header, sys.stdin.buffer))
        return
    target = await _place_in_run(session, end)
    copy = landing(await asyncio.to_thread(_place_here, source), target)
    directory, _, name = copy.target.rpartition("/")
    with tempfile.TemporaryFile() as file:
        # `.` is the directory itself, which an archive cannot call anything else.
        await asyncio.to_thread(pack, Path(copy.source), name or ".", file)
        file.seek(0, os.SEEK_SET)
        header = pb.CopyInHeader(run=end.run, path=directory or "/")
        await session.vm.CopyIn(_steps(header, file))


def _place_here(text: str) -> Place:
    """Returns what is at a path of this machine."""
    path = Path(text)
    resolved = os.path.realpath(text)
    if path.is_dir():
        kind = Kind.DIRECTORY
    elif path.is_file():
        kind = Kind.FILE
    else:
        kind = Kind.OTHER if path.exists() else Kind.NOTHING
    return Place(
        text=text if text != "" else ".",
        kind=kind,
        is_link=Path(text.rstrip("/") or "/").is_symlink(),
        resolved=resolved if Path(resolved).parent.is_dir() else "",
    )


async def _place_in_run(session: Session, place: InRun) -> Place:
    """Returns what is at a path of a run, as the guest says."""
    response = await session.vm.StatPath(pb.StatPathRequest(run=place.run, path=place.path))
    return Place(
        text=place.path,
        kind=_KINDS.get(response.followed, Kind.OTHER),
        is_link=response.kind == pb.StatPathResponse.KIND_LINK,
        resolved=response.resolved_path,
    )


async def _steps(header: pb.CopyInHeader, file: BinaryIO) -> AsyncIterator[pb.CopyInRequest]:
    yield pb.CopyInRequest(header=header)
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield pb.CopyInRequest(chunk=chunk)
    yield pb.CopyInRequest(commit=pb.CopyInCommit())
