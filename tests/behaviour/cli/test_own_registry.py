"""`lns registry`: what it asks of docker, and what it says where docker cannot."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.behaviour.cli.conftest import Client

# A container is a file that says whether it runs; a volume is a directory. What it writes and how
# it ends is what docker 27 was seen to write.
DOCKER = """#!/bin/sh
cd "$(dirname "$0")"
echo "$*" >> calls
case "$1" in
    inspect)
        [ -e container ] || { echo "Error: No such object: lns-registry" >&2; exit 1; }
        cat container ;;
    run)
        [ -e failure ] && { echo false > container; cat failure >&2; exit 125; }
        mkdir -p volume; echo true > container; echo 4f0c048d64a5 ;;
    port) echo "127.0.0.1:$(cat served)" ;;
    rm) rm -f container ;;
    volume) rmdir volume ;;
esac
"""
BUSY = """docker: Error response from daemon: driver failed programming external connectivity: \
Bind for 127.0.0.1:5000 failed: port is already allocated

Run 'docker run --help' for more information
"""
NO_IMAGE = """Unable to find image 'registry:2' locally
docker: Error response from daemon: Get "https://hub.example/v2/": no such host

Run 'docker run --help' for more information
"""
NO_DAEMON = """docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock.

Run 'docker run --help' for more information
"""


class Answering(BaseHTTPRequestHandler):
    """A registry that has come up."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def docker(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with the only docker on the path, and a registry at the port that it tells."""
    place = short_directory / "docker"
    place.mkdir()
    (place / "docker").write_text(DOCKER)
    (place / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (place / "served").write_text(str(server.server_port))
        yield place
        server.shutdown()


def calls(docker: Path) -> list[str]:
    """Returns the commands since the last look."""
    path = docker / "calls"
    found = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [line.split()[0] for line in found]


def test_a_registry_is_started_at_loopback_and_keeps_its_data(lns: Client, docker: Path) -> None:
    result = lns("registry", "start", "--port", "5000")

    assert (result.code, result.out) == (0, f"localhost:{(docker / 'served').read_text()}\n")
    started = (docker / "calls").read_text()
    assert "-p 127.0.0.1:5000:5000 -v lns-registry:/var/lib/registry registry:2" in started
    assert "--restart unless-stopped" in started


def test_one_that_runs_is_left_alone_and_one_that_ended_is_replaced(
    lns: Client, docker: Path
) -> None:
    lns("registry", "start")
    calls(docker)

    again = lns("registry", "start")
    assert (again.code, calls(docker)) == (0, ["inspect", "port"])
    assert "it runs already" in again.err

    (docker / "container").write_text("false\n")
    assert lns("registry", "start").code == 0
    assert calls(docker) == ["inspect", "rm", "run", "port"]


def test_what_was_pushed_outlives_a_stop_unless_it_is_removed(lns: Client, docker: Path) -> None:
    lns("registry", "start")
    assert lns("registry", "stop").out == "lns-registry\n"
    assert (docker / "volume").exists()
    lns("registry", "start")

    assert lns("registry", "stop", "--remove").code == 0
    assert not (docker / "volume").exists()
    assert not (docker / "container").exists()


def test_stopping_none_says_how_to_start_one(lns: Client, docker: Path) -> None:
    result = lns("registry", "stop")

    assert result.code == 1
    assert "no registry was started" in result.err
    assert "lns registry start" in result.err


@pytest.mark.parametrize(
    ("failure", "why", "hint"),
    [
        (BUSY, "port is already allocated", "lns registry start --port 5001"),
        (NO_IMAGE, "no such host", "could not fetch registry:2"),
        (NO_DAEMON, "Cannot connect to the Docker daemon", "docker info"),
    ],
    ids=["port", "image", "daemon"],
)
def test_dockers_reason_is_shown_and_not_its_pointer_to_the_help(
    lns: Client, docker: Path, failure: str, why: str, hint: str
) -> None:
    (docker / "failure").write_text(failure)

    result = lns("registry", "start")

    assert result.code == 1
    assert why in result.err
    assert hint in result.err
    assert "--help" not in result.err

    (docker / "failure").unlink()
    assert lns("registry", "start").code == 0  # what the failure left does not stand in the way


def test_without_docker_other_ways_are_named(
    lns: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    result = lns("registry", "start")

    assert result.code == 1
    assert "docker is not installed" in result.err
    assert "lns run ./agent.yaml" in result.err
