"""What work costs is measured of the whole tree of processes, and of nothing else."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.benchmarks.harness import Unavailable
from tests.benchmarks.measure import (
    CommandFailed,
    cpu_seconds,
    iter_tree,
    measured_services,
    peak_bytes,
    run_command,
)

MIB = 1 << 20
_ANSWERS = """
import sys
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


def known(value: float | None) -> float:
    assert value is not None
    return value


class Service:
    """A process that does what a test scripts."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def run(self, code: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(code, file=self.process.stdin, flush=True)
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture
def service() -> Iterator[Service]:
    arguments = [sys.executable, "-c", _ANSWERS]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Service(process)


def test_a_command_costs_what_its_children_cost_too() -> None:
    burn = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    work = "x = bytearray(64 << 20)\nfor _ in range(3_000_000): pass"

    idle = run_command([sys.executable, "-c", "pass"])
    busy = run_command([sys.executable, "-c", burn, work])

    assert known(busy.cpu) > known(idle.cpu)
    assert known(busy.wall) > known(idle.wall)
    assert known(busy.bytes) - known(idle.bytes) > 60 * MIB


def test_a_command_does_not_count_the_memory_of_who_starts_it() -> None:
    ballast = bytearray(100 * MIB)

    sample = run_command(["true"])

    assert len(ballast) > known(sample.bytes)


def test_a_command_gets_its_environment_and_may_be_expected_to_fail() -> None:
    code = "import os, sys; sys.exit(int(os.environ['CODE']))"

    sample = run_command([sys.executable, "-c", code], environment={"CODE": "3"}, expected=3)

    assert known(sample.wall) > 0


def test_a_failing_command_says_what_it_said() -> None:
    with pytest.raises(CommandFailed, match="ended with 1: broken thing"):
        run_command([sys.executable, "-c", "import sys; sys.exit('broken thing')"])


def test_an_absent_command_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="no-such-tool is not installed"):
        run_command(["no-such-tool"])


def test_a_service_costs_what_it_does_now_and_not_what_it_did_before(service: Service) -> None:
    service.run("x = bytearray(200 << 20); del x")

    sample = measured_services(
        [service.process.pid], lambda: service.run("y = bytearray(50 << 20); del y")
    )

    assert 50 * MIB < known(sample.bytes) < 150 * MIB


def test_a_service_costs_what_its_workers_cost(service: Service) -> None:
    service.run("import subprocess")
    start = "w = subprocess.Popen(['sleep', '60'])"

    service.run(start)
    tree = list(iter_tree(service.process.pid))
    service.run("w.kill(); w.wait()")

    assert len(tree) == 2
    assert list(iter_tree(service.process.pid)) == [service.process.pid]


def test_processor_time_of_dead_children_stays(service: Service) -> None:
    pid = service.process.pid
    service.run("import subprocess")
    before = cpu_seconds(pid)

    service.run(f"subprocess.run([{sys.executable!r}, '-c', 'for _ in range(10_000_000): pass'])")

    assert cpu_seconds(pid) - before > 0.1


def test_a_process_that_is_gone_costs_nothing() -> None:
    with subprocess.Popen(["true"]) as process:
        pass

    assert (cpu_seconds(process.pid), peak_bytes(process.pid)) == (0, 0)
