"""Real programs of a guest reach real servers, where TLS is looked into and where it is not.

The run starts with a policy that has nothing in it: all that it reaches was allowed while it lived.
"""

import importlib.util
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import asyncssh
import pytest

from tests.support.eventually import eventually
from tests.support.lns_command import Lns, lns_user
from tests.support.program_packages import publish_all, repository_of
from tests.support.program_peers import grpc_server, ssh_server
from tests.support.program_servers import BIG, NAMES, ProgramServers
from tests.support.registry import RunningRegistry
from tests.support.vmm_memory import memory_holds

pytestmark = pytest.mark.timeout(600)  # Node and pip are slow under emulation, and share two cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A run and the servers around it."""

    user: Lns
    servers: ProgramServers
    ssh_port: int
    grpc_port: int

    def does(self, script: str) -> str:
        """Returns what a script says in the guest, which has to succeed."""
        known = {"$PORT": self.servers.port, "$PLAIN": self.servers.plain_port}
        known |= {"$SSH": self.ssh_port, "$GRPC": self.grpc_port}
        for name, value in known.items():
            script = script.replace(name, str(value))
        return self.user.ok("exec", "-i", "field", "--", "sh", "-eu", stdin=script, within=500)

    def allow(self, host: str, *rules: str) -> None:
        """Edits the policy of the run while it lives."""
        options = [part for rule in rules for part in ("--rule", rule)]
        self.user.ok("policy", "allow", host, *options)


@pytest.fixture(scope="module")
def field(programs_layout: Path, registry: RunningRegistry) -> Iterator[Field]:
    directory = Path(tempfile.mkdtemp(prefix="lns", dir="/tmp"))
    key = asyncssh.generate_private_key("ssh-ed25519")
    servers = ProgramServers(directory / "served")
    publish_all(servers)
    servers.write("web.test/file", BIG)
    authority = directory / "authority.pem"
    servers.authority.cert_pem.write_to_path(authority)
    variables = {
        "LNS_VM_RUNNER__EGRESS_NAMES": ",".join(f"{name}=127.0.0.1" for name in NAMES),
        "LNS_VM_RUNNER__EGRESS_AUTHORITIES": f"*.test={authority}",
    }
    public = key.export_public_key().decode()
    # What grpc of the guest's Python is: this one's, which runs the tests.
    found = importlib.util.find_spec("grpc")
    assert found is not None
    assert found.origin is not None
    site = Path(found.origin).parents[1]
    binds = [
        part
        for name in ("grpc", "typing_extensions.py")
        for part in ("-v", f"{site}/{name}:/site/{name}:ro")
    ]
    try:
        with (
            servers,
            ssh_server(servers.directory / "git.test", public) as ssh_port,
            grpc_server(servers) as grpc_port,
            lns_user(directory, variables) as user,
        ):
            reference = f"{registry.new_repository('images/programs')}:1"
            user.ok("push", f"oci:{programs_layout}", reference)
            user.ok("policy", "default", "deny")
            user.ok(
                "run", "-d", "-q", "-m", "1g", "--name", "field", *binds, reference,
                "--", "tail", "-f", "/dev/null", within=400,
            )  # fmt: skip
            one = Field(user=user, servers=servers, ssh_port=ssh_port, grpc_port=grpc_port)
            one.does("umask 77; mkdir -p ~/.ssh; cat >~/.ssh/id <<'E'\n"
                     + key.export_private_key().decode() + "E\n")  # fmt: skip
            yield one
    finally:
        shutil.rmtree(directory, ignore_errors=True)


GET = "curl -sS --max-time 60 https://web.test:$PORT/file | sha256sum"


async def test_a_first_rule_takes_effect_on_a_run_that_has_none(field: Field) -> None:
    assert "curl: (7)" in field.does(f"({GET}) 2>&1")
    assert field.servers.asked == []

    field.allow("web.test", "GET /**", "POST /upload")
    field.allow("127.0.0.1")  # where the names of these tests lead

    digest = sha256(BIG).hexdigest()
    await eventually(lambda: digest in field.does(GET), within=60)
    refused = field.does("curl -sS -X POST https://web.test:$PORT/file")
    assert '"how_to_allow"' in refused
    assert ("web.test", "POST", "/file") not in field.servers.asked


@pytest.fixture
def allowed(field: Field) -> Field:
    """The run with everything allowed that these tests need, whichever of them runs."""
    field.allow("127.0.0.1")
    field.allow("web.test", "GET /**", "POST /upload")
    field.allow("git.test", "GET /**", "POST /**")
    for host in ("pypi.test", "npm.test", "apt.test"):
        field.allow(host, "GET /**")
    field.allow("grpc.test", "POST /field.Field/Talk")
    field.allow(f"ssh.test:{field.ssh_port}")
    return field


def test_curl_and_wget_fetch_and_send(allowed: Field) -> None:
    said = allowed.does(
        """
        cd /tmp
        curl -sS https://web.test:$PORT/file >file && sha256sum <file
        wget -q -O - https://web.test:$PORT/file | sha256sum
        cat file file >two
        curl -sS -H 'Expect: 100-continue' --data-binary @two https://web.test:$PORT/upload; echo
        curl -sS -T - -X POST https://web.test:$PORT/upload <two; echo
        wget -q -O - --post-file two https://web.test:$PORT/upload; echo
        curl -sS http://web.test:$PLAIN/file | sha256sum
        """
    ).splitlines()

    once, twice = (sha256(BIG * count).hexdigest() for count in (1, 2))
    fetched, sent = f"{once}  -", f"{2 * len(BIG)} {twice} "
    assert said == [fetched, fetched, f"{sent}100-continue", f"{sent}100-continue", sent, fetched]


def test_events_arrive_one_by_one(allowed: Field) -> None:
    """The server sends the next only when the one before was read and answered."""
    said = allowed.does(
        """
        curl -sS -N https://web.test:$PORT/events | while read -r line; do
            [ -z "$line" ] || { echo "$line"; curl -sS https://web.test:$PORT/next; }
        done
        """
    )
    assert said.splitlines() == ["data: 0", "data: 1", "data: 2"]


def test_a_websocket_of_node_stays_open_both_ways(allowed: Field) -> None:
    program = """
        const socket = new WebSocket("wss://web.test:$PORT/socket");
        let count = 0;
        socket.onopen = () => socket.send("0");
        socket.onerror = (event) => { console.log(event.message); process.exit(1); };
        socket.onmessage = (event) => {
            console.log(event.data);
            if (++count < 3) socket.send(String(count)); else socket.close();
        };
    """
    said = allowed.does(f"cat >/tmp/ws.mjs <<'E'\n{program}\nE\nnode /tmp/ws.mjs")
    assert said.splitlines() == ["heard 0", "heard 1", "heard 2"]


COMMIT = """
    cd /tmp/$WAY && git config user.email a@example.com && git config user.name a
    head -c 2000000 /dev/urandom >grown && git add grown && git commit -q -m $WAY
    git push -q origin HEAD:refs/heads/$WAY
"""


def test_git_clones_and_pushes_over_https_and_over_ssh(allowed: Field) -> None:
    """What is pushed is longer than git's buffer, so that it comes in chunks."""
    ssh = "ssh -q -i ~/.ssh/id -o StrictHostKeyChecking=accept-new"
    allowed.does(
        f"""
        export GIT_SSH_COMMAND='{ssh}' GIT_TERMINAL_PROMPT=0
        rm -rf /tmp/https /tmp/ssh
        git clone -q https://git.test:$PORT/field.git /tmp/https
        {COMMIT.replace("$WAY", "https")}
        git clone -q -b https ssh://git@ssh.test:$SSH/field.git /tmp/ssh
        {COMMIT.replace("$WAY", "ssh")}
        """
    )
    heads = repository_of(allowed.servers) / "refs" / "heads"
    assert {one.name for one in heads.iterdir()} == {"https", "ssh"}


def test_pip_installs_from_an_index(allowed: Field) -> None:
    said = allowed.does(
        """
        pip install -q --disable-pip-version-check --root-user-action ignore --no-cache-dir \
            --index-url https://pypi.test:$PORT/simple --target /tmp/wheels barley
        PYTHONPATH=/tmp/wheels python3 -c 'import barley; print(barley.GROWS)'
        """
    )
    assert said == "barley grows"


TALK = """
import queue, grpc
messages = queue.Queue()
with open("/run/lns/ca-bundle.pem", "rb") as roots:
    channel = grpc.secure_channel("grpc.test:$GRPC", grpc.ssl_channel_credentials(roots.read()))
call = channel.stream_stream("/field.Field/Talk")(iter(messages.get, None))
for number in range(3):
    messages.put(b"%d" % number)
    print(next(call).decode())
messages.put(None)
assert list(call) == []
print(dict(call.trailing_metadata()))
"""


def test_grpc_talks_both_ways_and_ends_with_its_trailers(allowed: Field) -> None:
    """Each message waits for the answer to the one before."""
    said = allowed.does(f"PYTHONPATH=/site python3 - <<'E'\n{TALK}\nE")
    assert said.splitlines() == ["heard 0", "heard 1", "heard 2", "{'messages': '3'}"]


HOSTILE = """
import socket

def tried(name, *arguments, to):
    try:
        one = socket.socket(*arguments)
        one.settimeout(5)
        one.connect(to)
        one.send(b"out")
        print(name, "answered" if one.recv(1) else "ended")
    except OSError as error:
        print(name, "failed")

tried("vsock", socket.AF_VSOCK, socket.SOCK_STREAM, to=(2, 1024))
tried("vsock-datagram", socket.AF_VSOCK, socket.SOCK_DGRAM, to=(2, 1024))
tried("sctp", socket.AF_INET, socket.SOCK_STREAM, 132, to=("8.8.8.8", $PORT))
tried("udp-lite", socket.AF_INET, socket.SOCK_DGRAM, 136, to=("8.8.8.8", 53))
tried("icmp", socket.AF_INET, socket.SOCK_RAW, 1, to=("8.8.8.8", 0))
tried("quic", socket.AF_INET, socket.SOCK_DGRAM, to=("8.8.8.8", 443))
print("links", [name for _, name in socket.if_nameindex()])
"""


def test_a_program_as_root_has_no_other_way_out(allowed: Field) -> None:
    """Ways out 35, 39, 40, 41 and 45: sockets of every kind, and no link that leads anywhere."""
    said = allowed.does(f"python3 - <<'E'\n{HOSTILE}\nE").splitlines()

    names = ("vsock", "vsock-datagram", "sctp", "udp-lite", "icmp", "quic")
    assert said == [*(f"{name} failed" for name in names), "links ['lo']"]


def test_what_no_rule_allows_reaches_no_server(allowed: Field) -> None:
    allowed.servers.asked.clear()
    said = allowed.does(
        """
        for at in https://evil.test:$PORT/ https://web.test:$PLAIN/ http://evil.test:$PLAIN/; do
            curl -sS --max-time 20 $at 2>&1 || true
        done
        curl -sS -L https://web.test:$PORT/away 2>&1 || true
        curl -sS -H 'Host: evil.test' https://web.test:$PORT/
        curl -sS --connect-to evil.test:$PORT:web.test:$PORT https://evil.test:$PORT/ 2>&1 || true
        git clone -q https://pypi.test:$PORT/field.git /tmp/none 2>&1 || true
        """
    )
    assert "evil.test" in said
    assert not [one for one in allowed.servers.asked if one[0] == "evil.test"]


def test_the_key_of_the_authority_is_never_in_the_guest(allowed: Field) -> None:
    """Way out 51, after the run's certificates were used."""
    assert allowed.does(GET)
    (run,) = json.loads(f"[{allowed.user.ok('inspect', 'field')}]")
    (key,) = allowed.user.home.glob("runs/*/ca.key")
    certificate = key.with_name("ca.pem")

    assert memory_holds(run["vmm_pid"], certificate.read_bytes().splitlines()[2])  # it can look
    assert not memory_holds(run["vmm_pid"], key.read_bytes().splitlines()[1])
