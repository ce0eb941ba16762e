"""Starts VMMs by the launcher, and finds programs."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from services.core.errors import VmFailed
from services.vm_runner.adapters.confinement.measures import PID_FILE
from services.vm_runner.adapters.processes import Process
from services.vm_runner.adapters.qemu.message_pipe import MessagePipe

_LAUNCH_SECONDS = 20.0


async def start_process(
    command: Sequence[str], directory: Path, *, messages: MessagePipe
) -> Process:
    """Starts a process by the launcher, and holds it.

    Args:
        command: of the launcher.
        directory: where it works and leaves the process's pid.
        messages: where standard output and error go.

    Raises:
        VmFailed: it cannot be started.
    """
    pid, descriptor = await asyncio.to_thread(_launch, command, directory, messages)
    return Process(pid, descriptor)


def _launch(command: Sequence[str], directory: Path, messages: MessagePipe) -> tuple[int, int]:
    try:
        with messages.create() as writer:
            launched = subprocess.run(
                command,
                cwd=directory,
                env={},  # what stands there is not the VMM's to know
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                timeout=_LAUNCH_SECONDS,
                check=False,
            )
        if launched.returncode:
            raise VmFailed(f"the VMM could not be started: {messages.read()}")
        # The launcher made it a child of this process: the pid is its until it is waited for.
        pid = int((directory / PID_FILE).read_text())
        return pid, os.pidfd_open(pid)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise VmFailed(f"the VMM could not be started: {error}") from error


def find_program(name: str) -> Path | None:
    """Returns the path of a program, without links, or None."""
    path = shutil.which(name)
    return None if path is None else Path(path).resolve()
