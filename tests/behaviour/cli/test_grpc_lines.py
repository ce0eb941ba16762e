"""What gRPC writes by itself never reaches the user's terminal."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lns_command import ROOT

_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_REASON = b"too_many_pings"
_ENHANCE_YOUR_CALM = 11
_GOAWAY = (
    (8 + len(_REASON)).to_bytes(3, "big")
    + bytes([7, 0, 0, 0, 0, 0])
    + (0).to_bytes(4, "big")
    + _ENHANCE_YOUR_CALM.to_bytes(4, "big")
    + _REASON
)


@pytest.fixture
def scolding_server(short_directory: Path) -> Iterator[Path]:
    """A server that ends its only connection for too many pings (RFC 9113, 6.8), and is gone."""
    path = short_directory / "server.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            path.unlink()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(_SETTINGS + _GOAWAY)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join()


def list_runs(server: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "from cli.main import main; main()", "ps"],
        env={
            "HOME": str(server.parent),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{ROOT}/protos/gen",
            "LNS_ENDPOINT_VM_RUNNER": f"unix:{server}",
            **variables,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_failed_connection_is_reported_by_lns_alone(scolding_server: Path) -> None:
    result = list_runs(scolding_server)

    assert result.returncode != 0
    assert result.stderr.startswith("lns: cannot list runs\n")
    assert ".cc:" not in result.stderr


def test_who_chooses_grpcs_verbosity_gets_its_lines(scolding_server: Path) -> None:
    assert ".cc:" in list_runs(scolding_server, GRPC_VERBOSITY="INFO").stderr
