"""`lns snapshot RUN` and `lns run --from`, as a user types them; one warm run serves all of it."""

import json
import subprocess

from tests.support.lns_command import Lns

WARM = """
import os, signal, ssl
drawn = os.urandom(8).hex()
def say(*_):
    print("said", drawn, hash("a"), os.urandom(8).hex(), flush=True)
signal.signal(signal.SIGUSR1, say)
print("warm", flush=True)
while True:
    signal.pause()
"""
FRESH = "import ssl, uuid; print(hash('a'), ssl.RAND_bytes(16).hex(), uuid.uuid4())"
"""What a program that starts in a run draws: its hash seed, what makes its TLS keys, an id."""


def first_line(lns: Lns, run: str, word: str) -> str:
    """Waits for a line of a run's output that begins with a word."""
    with lns.start("logs", "-f", run, stdout=subprocess.PIPE) as logs:
        assert logs.stdout is not None
        try:
            return next(line for line in logs.stdout if line.startswith(word))
        finally:
            logs.kill()


def test_runs_from_one_snapshot_are_fresh_where_they_begin_and_alike_in_what_was_before(
    lns: Lns, image: str
) -> None:
    lns.ok(
        *("run", "-d", "--name", "warming", "-m", "256", image, "--", "python3", "-c", WARM),
        within=200,
    )
    first_line(lns, "warming", "warm")
    assert lns.ok("snapshot", "warming", "warm") == "warm"
    shown = json.loads(lns.ok("snapshot", "inspect", "warm", "--format", "json"))
    assert image.rpartition(":")[0] in shown["run"]["plan"]["image"]["reference"]
    assert shown["run"]["plan"]["argv"] == ["python3", "-c", WARM]

    forks = ["fork-a", "fork-b"]
    for name in forks:
        lns.ok("run", "-d", "--from", "warm", "--name", name, within=200)
    said = []
    for name in (*forks, "warming"):
        lns.ok("kill", "-s", "USR1", name)
        said.append(first_line(lns, name, "said").split()[1:])
    drawn, seeds, now = zip(*said, strict=True)
    assert len(set(drawn)) == len(set(seeds)) == 1, "a program has what it had"
    assert len(set(now)) == len(said), "and what it asks the kernel for is its own"

    looks = [lns.ok("exec", name, "--", "python3", "-c", FRESH).split() for name in forks]
    for different in zip(*looks, strict=True):
        assert len(set(different)) == len(forks), "a program that starts there is fresh"

    refused = lns.run("run", "--from", "warm", "-e", "A=1")
    assert refused.returncode == 125
    assert "--env cannot be given for a run that goes on from a snapshot" in refused.stderr
    lns.ok("rm", "-f", "warming", *forks)
    lns.ok("snapshot", "rm", "warm")
    rows = lns.ok("snapshot", "ls", "--format", "json").splitlines()
    assert "warm" not in [json.loads(row)["name"] for row in rows]
