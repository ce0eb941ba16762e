"""`lns cp`: files into and out of a run."""

import asyncio
import io
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import click
from lns.vm.v1 import vm_service_pb2 as pb

from cli import terminal
from cli.archive import EMPTY_ARCHIVE_BYTES, pack, unpack
from cli.context import Context, command
from cli.run.console import STDOUT
from cli.session import Peer, Session, open_session
from services.chassis.streams import CHUNK_BYTES
from services.core.errors import RequestInvalid

_STREAM = Path("-")
_ROOT_NAME = "root"
"""What the guest agent calls `/`."""
_IN_RUN = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*):(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class InRun:
    """A path in a run."""

    run: str
    path: PurePosixPath
    is_directory: bool


@command("cp", doing="copy {source}")
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
async def cp(context: Context, source: str, target: str) -> None:
    """Copy SOURCE to TARGET, one of which is RUN:/PATH.

    A TARGET that is a directory, or ends in /, is copied into; else its last name is the copy's.
    As the place on this machine, - is a tar archive on standard input or output.
    """
    start, end = parse_place(source), parse_place(target)
    if isinstance(end, Path) and target == "-" and terminal.terminal_size(STDOUT) is not None:
        raise RequestInvalid(
            "an archive is nothing for a terminal", hint="lns cp RUN:/PATH - >FILE"
        )
    async with open_session(context, Peer.VM_RUNNER) as session:
        if isinstance(start, InRun) and isinstance(end, Path):
            await _copy_out(session, start, end)
        elif isinstance(start, Path) and isinstance(end, InRun):
            await _copy_in(session, start, end)
        else:
            raise RequestInvalid(
                "one of SOURCE and TARGET is in a run, the other on this machine",
                hint="write RUN:/path for the one, and a plain path for the other",
            )


def parse_place(text: str) -> InRun | Path:
    """Returns the place that `RUN:/path` or a path of this machine names; `./a:b` is of this one.

    Raises:
        RequestInvalid: the path in the run is not absolute.
    """
    match = _IN_RUN.fullmatch(text)
    if match is None:
        return Path(text)
    if not match[2].startswith("/"):
        raise RequestInvalid(f"{text!r} names no absolute path in the run", hint="write RUN:/path")
    path = PurePosixPath(match[2])
    return InRun(run=match[1], path=path, is_directory=match[2].endswith("/"))


async def _copy_out(session: Session, start: InRun, target: Path) -> None:
    if target == _STREAM:
        async for piece in session.vm.CopyOut(
            pb.CopyOutRequest(run=start.run, path=str(start.path))
        ):
            await terminal.write_all(STDOUT, piece.data)
        return
    if start.path.name == "..":
        raise RequestInvalid(f"{start.path} has no name of its own", hint="name the directory")
    pieces = session.vm.CopyOut(pb.CopyOutRequest(run=start.run, path=str(start.path)))
    chunks = _pulled(aiter(pieces), asyncio.get_running_loop())
    await asyncio.to_thread(unpack, chunks, target, name=start.path.name or _ROOT_NAME)


def _pulled(
    pieces: AsyncIterator[pb.CopyOutResponse], loop: asyncio.AbstractEventLoop
) -> Iterator[bytes]:
    """What a run sends, for a thread beside the event loop: asked for piece by piece."""

    async def following() -> bytes | None:
        piece = await anext(pieces, None)
        return None if piece is None else piece.data

    while (data := asyncio.run_coroutine_threadsafe(following(), loop).result()) is not None:
        yield data


async def _copy_in(session: Session, source: Path, end: InRun) -> None:
    if source == _STREAM:
        header = pb.CopyInHeader(run=end.run, path=str(end.path))
        await session.vm.CopyIn(_steps(header, sys.stdin.buffer))
        return
    own = await asyncio.to_thread(source.resolve)  # `.` has a name too
    into = end.is_directory or await _is_directory(session, end)
    directory = end.path if into else end.path.parent
    name = own.name if into else end.path.name
    with tempfile.TemporaryFile() as file:
        await asyncio.to_thread(pack, source, name, file)
        file.seek(0, os.SEEK_SET)
        header = pb.CopyInHeader(run=end.run, path=str(directory))
        await session.vm.CopyIn(_steps(header, file))


async def _is_directory(session: Session, place: InRun) -> bool:
    """Returns whether a path in a run is a directory: an empty archive can be unpacked there."""
    header = pb.CopyInHeader(run=place.run, path=str(place.path))
    try:
        await session.vm.CopyIn(_steps(header, io.BytesIO(bytes(EMPTY_ARCHIVE_BYTES))))
    except RequestInvalid:
        return False
    return True


async def _steps(header: pb.CopyInHeader, file: BinaryIO) -> AsyncIterator[pb.CopyInRequest]:
    yield pb.CopyInRequest(header=header)
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield pb.CopyInRequest(chunk=chunk)
    yield pb.CopyInRequest(commit=pb.CopyInCommit())
