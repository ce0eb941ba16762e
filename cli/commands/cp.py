"""`lns cp`: files into and out of a run."""

import asyncio
import os
import re
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import click
from lns.vm.v1 import vm_service_pb2 as pb

from cli.archive import pack, unpack
from cli.context import Context, command
from cli.session import Peer, Session, open_session
from services.chassis.streams import CHUNK_BYTES
from services.core.errors import RequestInvalid

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

    A TARGET that ends in / is a directory to copy into; else its last name is the copy's. On this
    machine a TARGET that is a directory is copied into.
    """
    start, end = parse_place(source), parse_place(target)
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
    with tempfile.TemporaryFile() as file:
        request = pb.CopyOutRequest(run=start.run, path=str(start.path))
        async for piece in session.vm.CopyOut(request):
            await asyncio.to_thread(file.write, piece.data)
        file.seek(0)
        await asyncio.to_thread(unpack, file, target)


async def _copy_in(session: Session, source: Path, end: InRun) -> None:
    directory = end.path if end.is_directory else end.path.parent
    own = await asyncio.to_thread(source.resolve)  # `.` has a name too
    name = own.name if end.is_directory else end.path.name
    with tempfile.TemporaryFile() as file:
        await asyncio.to_thread(pack, source, name, file)
        file.seek(0, os.SEEK_SET)
        header = pb.CopyInHeader(run=end.run, path=str(directory))
        await session.vm.CopyIn(_steps(header, file))


async def _steps(header: pb.CopyInHeader, file: BinaryIO) -> AsyncIterator[pb.CopyInRequest]:
    yield pb.CopyInRequest(header=header)
    while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
        yield pb.CopyInRequest(chunk=chunk)
    yield pb.CopyInRequest(commit=pb.CopyInCommit())
