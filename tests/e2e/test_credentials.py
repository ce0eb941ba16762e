"""Real programs of one guest use keys that stay outside of it: real TLS, a row for each program.

Then everything that could go wrong goes wrong, and the keys are looked for everywhere.
"""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.keyed_servers import INPUT_TOKENS, LLM, OUTPUT_TOKENS, KeyedServers
from tests.support.leaks import processes_that_show, where_they_are
from tests.support.lns_command import ROOT, Lns, lns_user
from tests.support.program_packages import publish_all, repository_of
from tests.support.registry import RunningRegistry
from tests.support.vmm_memory import memory_holds

pytestmark = pytest.mark.timeout(900)  # some programs take tens of seconds under emulation

PROGRAMS = Path(__file__).with_name("keys_of_programs.py")
ROWS = (
    "anthropic", "curl", "wget", "openssl", "git", "Python ssl", "requests", "httpx", "aiohttp",
    "Node https and fetch", "npm", "pip", "uv", "apt", "SSL_CERT_FILE of its own", "another user",
)  # fmt: skip
SECRETS = {
    "who": "who-canary-4bd1c07e99a24f6c",
    "index": "index-canary-77aa0c1be3f94d58",
    "debian": "debian-canary-18d3b55a0c7e4f21",
    "untrusted": "untrusted-canary-6f0be2d94c18",
    "npm-publish": "npm_canary8c41f2e77d0b4a96b3ad",
    "github": "ghp_canary5d0e2f9a7b314c68ae91",
    "anthropic": "sk-ant-api03-canary-2c9f6e1d5b7a4083",
}
HOSTS = {
    "who.test": "who", "pypi.test": "index", "apt.test": "debian", "untrusted.test": "untrusted",
    "npm.test": "npm-publish", "github.com": "github", LLM: "anthropic",
}  # fmt: skip
WRONG = "wrong-canary-03e5a7d8b9c14f62"
INTEGRATION = """
apiVersion: lens.dev/v1alpha1
kind: Integration
metadata: {{name: {name}}}
spec:
  authKind: credential
  routes: [{{match: {host}}}]
  credential:
    envVar: {variable}
    placeholder: {name}-placeholder-of-lns
    injections: [{{kind: {kind}, domain: {host}}}]
"""
OWN = [
    ("who", "who.test", "bearer_header", "WHO_KEY"),
    ("index", "pypi.test", "basic_x_access_token", "INDEX_TOKEN"),
    ("debian", "apt.test", "basic_x_access_token", "APT_TOKEN"),
    ("untrusted", "untrusted.test", "bearer_header", "UNTRUSTED_KEY"),
    ("spare", "spare.test", "bearer_header", "SPARE_KEY"),
]


@dataclass(frozen=True, slots=True)
class World:
    """A guest that has run every program.

    Attributes:
        directory: with everything of its user.
        said: by name of a program, whether it did what it should, and what it said.
        shown: everything that commands have said, on standard output and error.
    """

    user: Lns
    servers: KeyedServers
    directory: Path
    said: dict[str, tuple[bool, str]] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)

    def lns(self, *arguments: str, stdin: str | None = None, within: float = 120) -> str:
        """Runs a command, whatever becomes of it; returns all that it says."""
        result = self.user.run("--debug", *arguments, stdin=stdin, within=within)
        self.shown.append(result.stdout + result.stderr)
        return self.shown[-1]

    def guest(self, script: str) -> str:
        """Returns what a script says in the guest."""
        script = script.replace("$PORT", str(self.servers.port))
        return self.lns("exec", "-i", "keys", "--", "sh", stdin=script)

    @property
    def vmm(self) -> int:
        """The process of the machine."""
        (run,) = json.loads(f"[{self.user.ok('inspect', 'keys')}]")
        return int(run["vmm_pid"])


@pytest.fixture(scope="module")
def user() -> Iterator[tuple[Lns, KeyedServers, Path]]:
    directory = Path(tempfile.mkdtemp(prefix="lns", dir="/tmp"))
    served = Path(tempfile.mkdtemp(prefix="lns", dir="/tmp"))  # what servers have is no leak
    keys = {host: SECRETS[name] for host, name in HOSTS.items()}
    servers = KeyedServers(served, {**keys, "spare.test": "which nobody stores"})
    publish_all(servers)
    authority = directory / "authority.pem"
    servers.authority.cert_pem.write_to_path(authority)
    names = [*HOSTS, "spare.test"]
    trusted = [f"{name}={authority}" for name in names if name != "untrusted.test"]
    variables = {
        "LNS_VM_RUNNER__EGRESS_NAMES": ",".join(f"{name}=127.0.0.1" for name in names),
        "LNS_VM_RUNNER__EGRESS_AUTHORITIES": ",".join(trusted),
    }
    try:
        with servers, lns_user(directory, variables) as lns:
            (lns.user / ".lns-integrations.yaml").write_text(
                "version: 1\nintegrations: []\nprices:\n"
                "  anthropic: {claude-sonnet-4-5*: {input: 30, output: 150}}\n"
            )
            for name, host, kind, variable in OWN:
                file = lns.user / f"{name}.yaml"
                text = INTEGRATION.format(name=name, host=host, kind=kind, variable=variable)
                file.write_text(text)
                lns.ok("integration", "add", str(file))
            lns.ok("integration", "add", "npm-publish", "--host", "npm.test")
            for name, secret in SECRETS.items():
                lns.ok("connect", name, "--value-stdin", stdin=secret)
            for name in [*SECRETS, "spare"]:
                lns.ok("policy", "allow", "--integration", name)
            lns.ok("policy", "allow", *names, "127.0.0.1")
            yield lns, servers, directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(served, ignore_errors=True)


@pytest.fixture(scope="module")
def world(
    user: tuple[Lns, KeyedServers, Path], registry: RunningRegistry, programs_layout: Path
) -> World:
    one = World(*user)
    reference = f"{registry.new_repository('images/programs')}:1"
    one.user.ok("push", f"oci:{programs_layout}", reference)
    one.user.ok(
        "run", "-d", "-q", "-m", "1g", "--name", "keys", "--approve-timeout", "2",
        "--budget", "anthropic=1USD|10k-tokens", reference, "--", "tail", "-f", "/dev/null",
        within=400,
    )  # fmt: skip
    one.user.ok("cp", str(ROOT / ".venv" / "bin" / "uv"), "keys:/usr/local/bin/uv")
    said = one.user.ok(
        "exec", "-i", "keys", "--", "python3", "-", str(one.servers.port),
        stdin=PROGRAMS.read_text(), within=800,
    )  # fmt: skip
    one.shown.append(said)
    for line in map(json.loads, said.splitlines()):
        one.said[line["name"]] = (line["did"], line["said"])
    return one


@pytest.mark.parametrize("name", ROWS)
def test_a_program_uses_a_key_that_it_does_not_have(world: World, name: str) -> None:
    did, said = world.said[name]
    assert did, said


def test_every_key_came_to_its_own_host_and_no_placeholder_to_any(world: World) -> None:
    came = {host for host, _, _ in world.servers.admitted}
    assert came == set(HOSTS) - {"untrusted.test"}
    assert not [key for _, key in world.servers.refused if "placeholder" in key]
    schemes = {(host, how) for host, how, _ in world.servers.admitted}
    assert {("who.test", "bearer"), ("github.com", "basic"), ("npm.test", "bearer")} <= schemes


def test_what_git_pushed_is_in_the_private_repository(world: World) -> None:
    log = ["git", "-C", str(repository_of(world.servers)), "log", "--format=%s", "main"]
    assert subprocess.run(log, capture_output=True, text=True, check=True).stdout == "grown\n"


def test_an_environment_of_the_guest_has_placeholders(world: World) -> None:
    said = world.guest("env")
    variables = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    assert variables["ANTHROPIC_API_KEY"].startswith("sk-ant-api03-lnsplaceholder")
    assert variables["WHO_KEY"] == "who-placeholder-of-lns"


def test_use_of_an_llm_is_counted_by_the_users_own_prices(world: World) -> None:
    used = [
        json.loads(line)
        for line in world.user.ok("egress", "keys", "--json").splitlines()
        if '"usage"' in line
    ]
    counts = [(int(one["input_tokens"]), int(one["output_tokens"])) for one in used]
    assert counts == [(INPUT_TOKENS, OUTPUT_TOKENS)] * 2
    # 240 tokens at 30 USD a million, and 68 at 150.
    stats = world.user.ok("stats", "--no-stream", "--format", "json", "keys")
    assert "anthropic 0.0174USD of 1.00USD (1 %), 308-tokens of 10000-tokens (3 %)" in stats
    (price, *_) = json.loads(world.user.ok("integration", "show", "anthropic"))["prices"]
    assert (price["model"], price["output"]) == ("claude-sonnet-4-5*", "150")
    assert price["origin"] == "user"


CURL = 'curl -sSi --max-time 60 -H "Authorization: Bearer'
IN_THE_GUEST = [
    ("no secret is stored", f'{CURL} $SPARE_KEY" https://spare.test:$PORT/', "lns connect spare"),
    ("another host", f'{CURL} $WHO_KEY" https://pypi.test:$PORT/', "HTTP/1.1 403"),
    ("nobody answers", f'{CURL} $WHO_KEY" https://who.test:1/ 2>&1', r"curl: \(7\)"),
    ("no trust in the service", f'{CURL} $UNTRUSTED_KEY" https://untrusted.test:$PORT/ 2>&1',
     r"curl: \(|HTTP/1.1 50"),
    ("in a body", 'curl -sSi --max-time 60 -d "$WHO_KEY" https://who.test:$PORT/x', "HTTP/1.1 401"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "expected"), [one[1:] for one in IN_THE_GUEST],
                         ids=[one[0] for one in IN_THE_GUEST])  # fmt: skip
def test_a_guest_that_fails_is_told_why_and_nothing_of_a_key(
    world: World, script: str, expected: str
) -> None:
    assert re.search(expected, world.guest(script))
    assert not [one for one in world.shown for secret in SECRETS.values() if secret in one]


@pytest.fixture(scope="module")
def aftermath(world: World) -> World:
    """Everything has gone wrong that a key could be in the middle of."""
    for _, script, _ in IN_THE_GUEST:
        world.guest(script)
    world.lns("connect", "who", "--value-stdin", stdin=f"{WRONG}\nsecond line")
    printed = world.directory.with_suffix(".secret")
    try:
        printed.write_text(WRONG)
        for command in ("cat {} >&2; exit 3", "cat {} {}; exit 3", "cat {}; echo; cat {}"):
            world.lns("connect", "who", "--command", command.replace("{}", str(printed)))
    finally:
        printed.unlink()
    world.lns("connect", "who", "--value-stdin", stdin=WRONG)  # live: the service refuses it
    assert "HTTP/1.1 401" in world.guest(f'{CURL} $WHO_KEY" https://who.test:$PORT/whoami')
    assert ("who.test", WRONG) in world.servers.refused
    world.lns("connect", "who", "--value-stdin", stdin=SECRETS["who"])

    store = world.user.user / ".lns-credentials.json"
    whole = store.read_text()
    store.write_text(whole[:-9])
    world.guest(f'{CURL} $WHO_KEY" https://who.test:$PORT/whoami')
    assert "is not a file of credentials" in world.lns("credentials", "list")
    store.write_text(whole)
    store.chmod(0o644)
    world.lns("connect", "who", "--value-stdin", stdin=SECRETS["who"])
    store.chmod(0o600)

    world.user.kill_suite()
    assert "keys" in world.lns("ps")
    assert "the owner of the key" in world.guest(f'{CURL} $WHO_KEY" https://who.test:$PORT/whoami')
    for command in ("logs keys", "egress keys", "audit keys", "inspect keys", "credentials list",
                    "service logs", "integration show who", "approvals list"):  # fmt: skip
        world.lns(*command.split())
    return world


def test_no_key_is_anywhere_but_in_the_store(aftermath: World) -> None:
    """Memory, disks, logs, audit, processes, messages with --debug; at last the saved machine."""
    keys, placeholder = [*SECRETS.values(), WRONG], "who-placeholder-of-lns"
    for text in aftermath.shown:
        assert not any(key in text for key in keys), text
    assert processes_that_show(keys) == []
    assert not memory_holds(aftermath.vmm, *(key.encode() for key in keys))
    assert memory_holds(aftermath.vmm, placeholder.encode())  # it can look

    aftermath.lns("suspend", "keys", within=300)
    assert "suspended" in aftermath.lns("ps", "-a").lower()
    found = where_they_are(aftermath.directory, [*keys, placeholder])
    store = str(aftermath.user.user / ".lns-credentials.json")
    assert found[WRONG] == set()
    assert [found[key] for key in SECRETS.values()] == [{store}] * len(SECRETS)
    assert any(f"{aftermath.user.home}/runs" in name for name in found[placeholder])
