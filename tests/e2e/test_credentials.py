"""An agent works with its user's key and never holds it: a real guest, real TLS."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.llm_server import LlmServer
from tests.support.lns_command import Lns, lns_user
from tests.support.registry import RunningRegistry
from tests.support.vmm_memory import memory_holds

HOST = "api.anthropic.com"
KEY = "sk-ant-api03-canary-9f1c2e7b64d84a5f"

# Plain Python, as small as an agent can be: it takes its key from the environment as an SDK does.
AGENT = """
import json, os, sys, urllib.request
key, port, what = os.environ["ANTHROPIC_API_KEY"], sys.argv[1], sys.argv[2]
print("KEY", key)
request = urllib.request.Request(
    f"https://api.anthropic.com:{port}/v1/messages",
    data=json.dumps({"stream": True, "history": [what, key]}).encode(),
    headers={"x-api-key": key, "content-type": "application/json"},
)
try:
    with urllib.request.urlopen(request, timeout=60) as reply:
        print("ECHO", reply.headers["Echo-Key"])
        for line in reply:
            if line.startswith(b"data: "):
                print("WORD", json.loads(line[6:])["text"], flush=True)
except urllib.error.HTTPError as error:
    print("STATUS", error.code, error.read().decode())
if what == "stay":
    sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[LlmServer]:
    with LlmServer(HOST, KEY) as running:
        yield running


@pytest.fixture(scope="module")
def user(server: LlmServer) -> Iterator[Lns]:
    directory = Path(tempfile.mkdtemp(prefix="lns", dir="/tmp"))
    authority = directory / "authority.pem"
    server.authority.cert_pem.write_to_path(authority)
    variables = {
        "LNS_VM_RUNNER__EGRESS_NAMES": f"{HOST}=127.0.0.1",
        "LNS_VM_RUNNER__EGRESS_AUTHORITIES": f"{HOST}={authority}",
    }
    try:
        with lns_user(directory, variables) as one:
            (one.user / "agent.py").write_text(AGENT)
            one.ok("policy", "allow", "--integration", "anthropic")
            one.ok("policy", "allow", HOST, "127.0.0.1")
            yield one
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def image(user: Lns, registry: RunningRegistry, image_layout: Path) -> str:
    reference = f"{registry.new_repository('images/agent')}:1"
    user.ok("push", f"oci:{image_layout}", reference)
    return reference


def test_the_key_reaches_the_service_and_nothing_else(
    user: Lns, image: str, server: LlmServer
) -> None:
    user.ok("connect", "anthropic", "--value-stdin", stdin=KEY)
    server.received.clear()
    arguments = ("-v", f"{user.user}/agent.py:/agent.py:ro", image)
    process = user.start(
        "run", "-i", "--name", "llm", *arguments, "--",
        "python3", "/agent.py", str(server.port), "stay",
        stdin=-1,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdin is not None
    lines: list[str] = []
    while not lines or lines[-1] != "WORD lime.":
        line = process.stdout.readline()
        assert line, process.communicate()
        lines.append(line.strip())

    placeholder = lines[0].removeprefix("KEY ")
    assert placeholder.startswith("sk-ant-api03-lns")
    assert lines[2:] == ["WORD Barley", "WORD likes", "WORD lime."]
    assert KEY not in lines[1]  # what the server echoes is masked
    (request,) = server.received
    assert request.headers["X-Api-Key"] == KEY
    assert request.body["history"] == ["stay", placeholder]  # quoted in a body it stays as it is

    assert where_it_is(user.home, KEY) == []
    (run,) = json.loads(f"[{user.ok('inspect', 'llm')}]")
    assert not memory_holds(run["vmm_pid"], KEY.encode())
    for name in ("cmdline", "environ"):
        assert KEY.encode() not in Path(f"/proc/{run['vmm_pid']}/{name}").read_bytes()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()
    audit = user.ok("audit", "llm")
    assert "/v1/messages" in user.ok("egress", "llm")
    assert KEY not in audit


def test_a_key_that_is_not_stored_is_asked_for_and_then_refused_with_the_way_out(
    user: Lns, image: str, server: LlmServer
) -> None:
    user.run("credentials", "remove", "anthropic")
    server.received.clear()

    result = user.run(
        "run", "--rm", "--approve-timeout", "2", "-v", f"{user.user}/agent.py:/agent.py:ro", image,
        "--", "python3", "/agent.py", str(server.port), "go",
    )  # fmt: skip

    assert re.search(r"STATUS 401 .*lns connect anthropic", result.stdout), result
    assert server.received == []


def where_it_is(folder: Path, text: str) -> list[str]:
    """Returns the files below a folder that hold a text: of snapshots and disks, too."""
    search = ["/usr/bin/grep", "--recursive", "--files-with-matches", "--no-messages", "--text"]
    found = subprocess.run(  # files of live services come and go
        [*search, "--fixed-strings", "--", text, folder],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.splitlines()
