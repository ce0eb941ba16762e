"""The `lns` command as a process that is interrupted, or loses its reader, at many moments."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest
from lns.vm.v1 import run_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from tests.support.lns_command import ROOT
from tests.support.scripted_services import ScriptedServices

# Signals itself at its n-th audit event: imports, files, connections and calls are some. So a
# moment is a place in the program, not a time. Without n it says how many there are.
_HARNESS = """
import os, sys
number, moment = map(int, sys.argv[1:3])
del sys.argv[1:3]
seen = 0
def hook(event, arguments):
    global seen
    seen += 1
    if seen == moment:
        os.kill(os.getpid(), number)
def leave(code):
    if moment == 0:
        os.write(2, b"%d" % seen)
    real_exit(code)
from cli.main import main
real_exit, os._exit = os._exit, leave
sys.addaudithook(hook)
main()
"""


def command(
    services: ScriptedServices, arguments: Sequence[str], *, number: int = 0, moment: int = 0
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", _HARNESS, str(number), str(moment), *arguments],
        env={
            **services.environment,
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{ROOT}:{ROOT}/protos/gen",
        },
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )


@pytest.fixture
def scripted(services: ScriptedServices) -> ScriptedServices:
    services["ListRuns"] = pb.ListRunsResponse(runs=[run_pb2.Run(run_id="0" * 32, name="web")])
    services["Attach"] = [
        pb.AttachResponse(started=pb.Attached(run_id="0" * 32, exec_id="1")),
        pb.AttachResponse(stdout=b"out\n"),
        pb.AttachResponse(exited=run_pb2.ExitStatus(code=0)),
    ]
    return services


@pytest.mark.parametrize(
    ("arguments", "count"),
    [(["exec", "web", "true"], 20), (["ps"], 6), (["--help"], 4), (["nonsense"], 4)],
)
def test_an_interrupt_never_shows_a_stack_trace(
    scripted: ScriptedServices, arguments: list[str], count: int
) -> None:
    whole = command(scripted, arguments)
    events = int(whole.stderr.splitlines()[-1].split()[-1])
    moments = [1 + events * step // count for step in range(count)]

    for moment in moments:
        ended = command(scripted, arguments, number=signal.SIGINT, moment=moment)
        assert "Traceback" not in ended.stderr, f"at {moment} of {events}: {ended.stderr}"
        assert "Exception" not in ended.stderr, f"at {moment} of {events}: {ended.stderr}"
        assert ended.returncode in (whole.returncode, 130, -signal.SIGINT), ended


@pytest.mark.parametrize(
    "arguments", [["ps"], ["exec", "web", "yes"], ["--help"], ["version"]], ids=lambda a: a[0]
)
def test_a_reader_that_is_gone_ends_a_command_with_141(
    scripted: ScriptedServices, arguments: list[str]
) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as broken:
        ended = subprocess.run(
            [sys.executable, "-c", "from cli.main import main; main()", *arguments],
            env={**scripted.environment, "PYTHONPATH": f"{ROOT}:{ROOT}/protos/gen"},
            stdout=broken,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )

    assert (ended.returncode, ended.stderr) == (141, b"")
