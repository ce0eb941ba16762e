"""A bundle of several agents from a real registry: a microVM each, which begin and end together."""

import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bundles import describe_file
from tests.support.lns_command import Lns
from tests.support.registry import RunningRegistry

SERVE = """
import http.server, socket
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"hello from {socket.gethostname()} to {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
print("serving", flush=True)
http.server.HTTPServer(("0.0.0.0", 8080), Page).serve_forever()
"""
FETCH = """
import sys, time, urllib.request
while True:
    try:
        print(urllib.request.urlopen("http://web:8080/me").read().decode(), flush=True)
        break
    except OSError:  # it boots, or does not listen yet
        time.sleep(0.1)
try:
    urllib.request.urlopen("http://web:8081/")
except OSError as error:
    print(error.reason, file=sys.stderr, flush=True)
sys.exit(4)
"""


def wait_for(holds: Callable[[], bool], said: Path, *, within: float = 100) -> None:
    """Returns when `holds()` is true."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.1)


@pytest.fixture(scope="module")
def bundle(lns: Lns, registry: RunningRegistry, image: str) -> str:
    prefix = f"g{secrets.token_hex(4)}"

    def push(path: str, kind: str, rest: str) -> str:
        file = describe_file(lns.user, kind, path.partition("/")[2], rest)
        reference = f"{registry.host}/{prefix}/{path}:1"
        lns.ok("push", str(file), reference)
        return reference

    for name, script in (("web", SERVE), ("client", FETCH)):
        lines = "".join(f"    {line}\n" for line in script.splitlines())
        push(
            f"agents/{name}",
            "Agent",
            f"spec:\n  image: {image}\n  command:\n  - python3\n  - -c\n  - |\n{lines}",
        )
    push("sandboxes/small", "Sandbox", "spec: {resources: {cpu: 1, memory: 256Mi}}\n")
    return push(
        "bundles/team",
        "AgentSystem",
        "spec:\n  components:\n"
        f"    agents: [{{ref: {prefix}/agents/web:1}}, {{ref: {prefix}/agents/client:1}}]\n"
        f"    sandbox: {{ref: {prefix}/sandboxes/small:1}}\n",
    )


def test_a_group_runs_in_the_foreground_and_ends_with_one_signal(
    lns: Lns, bundle: str, tmp_path: Path
) -> None:
    shown, said = tmp_path / "out", tmp_path / "err"
    with shown.open("wb") as out, said.open("wb") as err:
        process = lns.start("run", "--rm", bundle, stdout=out, stderr=err)
    try:
        wait_for(lambda: "ended with 4" in said.read_text() or process.poll() is not None, said)
        assert sorted(shown.read_text().splitlines()) == [
            "client | hello from web to /me",
            "web    | serving",
        ]
        assert "team-web" in lns.ok("ps", "--filter", "group=team")

        process.send_signal(signal.SIGINT)
        code = process.wait(timeout=60)
    finally:
        process.kill()
        process.wait()

    assert code == 143, said.read_text()  # the server's, which comes first in the bundle
    assert "client | [Errno 111] Connection refused" in said.read_text()
    assert lns.ok("ps", "-aq") == ""


def test_a_group_runs_in_the_background_under_a_name_of_its_own(lns: Lns, bundle: str) -> None:
    run_ids = lns.ok("run", "-d", "--name", "crew", bundle).splitlines()
    assert len(run_ids) == 2
    assert lns.ok("wait", "crew-client") == "4"

    rows = lns.ok("ps", "-a", "--format", "{{.Group}} {{.Name}} {{.State}}").splitlines()
    assert sorted(rows) == ["crew crew-client exited", "crew crew-web running"]
    assert "web    | serving" in lns.ok("logs", "crew").splitlines()
    assert lns.run("run", "-d", "--name", "crew", bundle).returncode == 125

    assert lns.ok("stop", "crew").splitlines() == ["crew-web", "crew-client"]
    assert lns.ok("rm", "crew").splitlines() == ["crew-web", "crew-client"]
    assert lns.ok("ps", "-aq") == ""
