"""Starts a desk beside the suite of a state directory."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from cli.desk.launcher import desk_socket

_ADDRESS_BYTES = 107  # sun_path of unix(7)


def start(home: str, environment: Mapping[str, str]) -> None:
    """Starts a desk unless a process listens at its socket, or no suite ran; never raises.

    Nor where the socket's path is longer than an address may be.
    """
    path = desk_socket(home)
    if len(os.fsencode(path)) > _ADDRESS_BYTES:
        return
    if not Path(home, "run", "suite.version").exists() or _answers(path):
        return
    with contextlib.suppress(OSError):
        subprocess.Popen(
            [sys.executable, "-P", "-m", "cli.desk", home],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={**environment, "LNS_HOME": home},
            start_new_session=True,
        )


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(1)
        try:
            connection.connect(path)
        except OSError:
            return False
    return True
