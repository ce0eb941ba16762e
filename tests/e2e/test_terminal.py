"""One run with a terminal, its agent's artifacts mounted, that the tests of this module share.

Its terminal is attached for the whole time; the last test ends it.
"""

import os
import pty
import secrets
import select
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.bundles import push_bundle
from tests.support.lns_command import Lns
from tests.support.registry import RunningRegistry

# Prints what is wrong of the entries of a directory, whose mount points are left out, and how many
# it looked at. What `readdir` says of an entry is what `stat` says, or `find` and `git` go astray.
ENTRIES = """
import os, sys
top = sys.argv[1]
mounts = {line.split()[4] for line in open("/proc/self/mountinfo")}
wrong, seen = [], 0
for entry in os.scandir(top):
    found = os.lstat(entry.path)
    if entry.path in mounts:
        continue
    seen += 1
    if entry.inode() != found.st_ino or found.st_dev != os.stat(top).st_dev:
        wrong.append((entry.path, entry.inode(), found.st_ino, found.st_dev))
print(seen, wrong)
"""

# Changes files of the image, which are copied into the writable layer by that.
CHANGES = """
set -e
cd /etc
id() { stat -c '%d %i' passwd debian_version; }
before=$(id)
echo '# more' >> passwd
chmod g+w debian_version
mkdir -p made/deep
echo new > made/new
mv issue issue.moved
test "$before" = "$(id)"
"""


class Typist:
    """A user at a terminal, in front of a command."""

    def __init__(self, lns: Lns, *arguments: str) -> None:
        self._controller, terminal = pty.openpty()
        self.process = lns.start(
            *arguments, stdin=terminal, stdout=terminal, stderr=subprocess.DEVNULL
        )
        os.close(terminal)
        self.shown = b""

    def type(self, text: str) -> None:
        """Types."""
        os.write(self._controller, text.encode())

    def until(self, text: str, *, within: float = 120) -> str:
        """Returns what the terminal has shown since it began, as soon as `text` is in it."""
        end = time.monotonic() + within
        while text.encode() not in self.shown:
            ready, _, _ = select.select([self._controller], [], [], max(0, end - time.monotonic()))
            assert ready, f"{text!r} was not shown:\n{self.shown.decode(errors='replace')}"
            self.shown += os.read(self._controller, 4096)
        return self.shown.decode(errors="replace")

    def close(self) -> None:
        """Closes the terminal; the command ends by that, if it has not ended."""
        self.process.send_signal(signal.SIGHUP)
        self.process.wait(60)
        os.close(self._controller)


NAME = f"terminal-{secrets.token_hex(3)}"


@pytest.fixture(scope="module")
def typist(lns: Lns, registry: RunningRegistry, image: str) -> Iterator[Typist]:
    bundle = push_bundle(lns, registry.host, f"b{secrets.token_hex(4)}", image)
    typist = Typist(lns, "run", "-q", "-it", "--name", NAME, bundle, "--", "sh")
    try:
        typist.type("echo ready-$((1+1))\n")
        typist.until("ready-2", within=240)
        yield typist
    finally:
        typist.close()
        lns.run("rm", "-f", NAME)


@pytest.mark.parametrize("place", ["/", "/etc", "/usr/lib", "/etc/agent/tools/greet", "/srv/notes"])
def test_a_directory_numbers_its_entries_as_they_number_themselves(
    lns: Lns, typist: Typist, place: str
) -> None:
    """Of the image and of what the run changed; of the root and of artifacts that are read-only."""
    if place == "/etc":
        lns.ok("exec", NAME, "sh", "-c", CHANGES)

    seen, wrong = lns.ok("exec", NAME, "python3", "-c", ENTRIES, place).split(" ", 1)

    assert int(seen) >= 1
    assert wrong == "[]"


def test_a_count_that_stays_on_one_file_system_leaves_nothing_out(lns: Lns, typist: Typist) -> None:
    staying, whole = (
        lns.ok("exec", NAME, "du", f"-s{flag}", "/usr/bin").split()[0] for flag in ("x", "")
    )

    assert int(staying) > 4096
    assert staying == whole


def test_a_program_does_not_survive_the_reader_of_its_output(lns: Lns, typist: Typist) -> None:
    process = lns.start("exec", NAME, "yes", "for-nobody")
    assert process.stdout is not None
    assert process.stdout.readline() == "for-nobody\n"
    process.stdout.close()

    assert process.wait(120) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    left = lns.ok("exec", NAME, "sh", "-c", "cat /proc/[0-9]*/comm | grep -cx yes || true")
    assert left == "0"


def test_a_terminal_survives_a_restart_of_the_services_with_all_that_is_typed_meanwhile(
    lns: Lns, typist: Typist
) -> None:
    restart = lns.start("service", "restart", stdout=subprocess.DEVNULL)
    typed = 0
    while restart.poll() is None:
        typed += 1
        typist.type(f"echo line-{typed}-$((1000+{typed}))-\n")
        time.sleep(0.05)  # the pace of the typist
    assert "the services run" in restart.communicate()[1]
    typist.type("echo last-$((1+1))\n")
    shown = typist.until("last-2")

    assert restart.returncode == 0
    assert [shown.count(f"line-{n}-{1000 + n}-") for n in range(1, typed + 1)] == [1] * typed
    typist.type("exit 3\n")
    assert typist.process.wait(120) == 3
