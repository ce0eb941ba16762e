"""Files into and out of a run, as tar archives that the guest agent packs and unpacks.

The agent does it inside the run, as the workload's root user and within the workload's root, so a
link of the guest leads nowhere else. Here the archives are bytes: whoever unpacks one from a guest
has to take it for hostile.
"""

from collections.abc import AsyncGenerator, AsyncIterator

from services.core.errors import GuestUnreachable, RequestInvalid
from services.vm_runner.channel.requests import Builtin, ProcessSpec
from services.vm_runner.life.execs import ExecAttachment, start_exec
from services.vm_runner.life.run_life import RunLife
from services.vm_runner.records.run_log import LogStream

_MESSAGE_BYTES = 512
_COUNT_BYTES = 32
_PATH_BYTES = 4096 + 2


async def copy_out(life: RunLife, path: str) -> AsyncGenerator[bytes, None]:
    """Yields a tar archive of a file or tree of the guest, under the path's last name.

    Links are kept as links; devices, FIFOs and sockets are left out.

    Raises:
        RequestInvalid: the path is not absolute, or cannot be read; then what was yielded before
            is not an archive.
        RunStateConflict: the run's workload does not run.
        GuestUnreachable: the guest does not answer.
    """
    attachment = await _start(life, Builtin.PACK, path)
    message = b""
    try:
        async for output in attachment.output():
            if output.stream is LogStream.STDOUT:
                yield output.data
            else:
                message = (message + output.data)[:_MESSAGE_BYTES]
        await _check_end(attachment, path, message)
    finally:
        await _end(attachment)


async def copy_in(life: RunLife, path: str, archive: AsyncIterator[bytes]) -> int:
    """Unpacks a tar archive below a directory of the guest; returns the number of entries.

    Existing files are replaced; no entry leads out of the directory. What was unpacked before a
    failure stays.

    Raises:
        RequestInvalid: the path is not absolute, or no directory; or the archive is broken.
        RunStateConflict: the run's workload does not run.
        GuestUnreachable: the guest does not answer.
    """
    attachment = await _start(life, Builtin.UNPACK, path)
    printed = message = b""
    try:
        async for chunk in archive:
            await attachment.write(chunk)
        await attachment.close_input()
        async for output in attachment.output():
            if output.stream is LogStream.STDOUT:
                printed = (printed + output.data)[:_COUNT_BYTES]
            else:
                message = (message + output.data)[:_MESSAGE_BYTES]
        await _check_end(attachment, path, message)
    finally:
        await _end(attachment)
    count = printed.strip()
    if not count.isdigit():
        raise GuestUnreachable("the guest did not say how many entries it unpacked")
    return int(count)


async def stat_path(life: RunLife, path: str) -> tuple[str, str, str]:
    """Returns what is at a path of the guest, what its links lead to, and where to.

    The first two are `f` for a file, `d` directory, `l` link, `o` other, `-` for nothing. The third
    is an absolute path, empty where the directory of the last name does not exist.

    Raises:
        RequestInvalid: the path is not absolute.
        RunStateConflict: the run's workload does not run.
        GuestUnreachable: the guest does not answer, or not as it should.
    """
    attachment = await _start(life, Builtin.STAT, path)
    printed = message = b""
    try:
        async for output in attachment.output():
            if output.stream is LogStream.STDOUT:
                printed = (printed + output.data)[:_PATH_BYTES]
            else:
                message = (message + output.data)[:_MESSAGE_BYTES]
        await _check_end(attachment, path, message)
    finally:
        await _end(attachment)
    answer = printed.decode("utf-8", "replace")
    kinds, resolved = answer[:2], answer[2:]
    is_known = len(kinds) == len("fd") and set(kinds) <= set("fdlo-") and "\0" not in resolved
    if not is_known or (resolved and not resolved.startswith("/")):
        raise GuestUnreachable("the guest did not say what is at the path")
    return kinds[0], kinds[1], resolved


async def _start(life: RunLife, builtin: Builtin, path: str) -> ExecAttachment:
    if not path.startswith("/") or "\0" in path:
        raise RequestInvalid(f"{path!r} is not an absolute path of the guest")
    session = life.guest()
    process_id = session.new_id()
    spec = ProcessSpec(
        argv=(path,),
        builtin=builtin,
        stdio_stream=session.new_id(),
        stderr_stream=session.new_id(),
    )
    return await start_exec(session, spec, process_id=process_id)


async def _check_end(attachment: ExecAttachment, path: str, message: bytes) -> None:
    status = await attachment.exit_status()
    if status.code == 0:
        return
    said = message.decode("utf-8", "replace").strip().splitlines()
    why = "".join(c if c.isprintable() else "?" for c in said[0]) if said else str(status.code)
    raise RequestInvalid(
        f"the guest cannot copy {path}: {why}",
        hint="look at the path with `lns exec`",
        metadata={"path": path},
    )


async def _end(attachment: ExecAttachment) -> None:
    """Ends a copy that may still be at work; nothing happens to one that is done."""
    await attachment.signal("KILL")
    attachment.leave()
