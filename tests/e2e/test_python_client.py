"""Programs that embed lns: the examples, as their users would run them."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.lns_command import ROOT, Lns

EXAMPLES = ROOT / "examples"


def start(lns: Lns, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *arguments],
        env=lns.environment | variables,
        cwd=lns.user,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_examples_do_what_they_say(lns: Lns, image: str, tmp_path: Path) -> None:
    """Side by side, since each boots a machine."""
    (tmp_path / "check.py").write_text("import sys; print('checked'); sys.exit(3)\n")
    started = {
        "tools": start(lns, str(EXAMPLES / "tools_in_a_sandbox.py"), image),
        "approve": start(lns, str(EXAMPLES / "approve_headless.py"), image),
        "step": start(
            lns, str(EXAMPLES / "ci_step.py"), image, str(tmp_path), "python3", "check.py"
        ),
        "fork": start(lns, str(EXAMPLES / "fork_and_compare.py"), image, "3"),
        "fixture": start(
            lns,
            *("-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "pytest_fixture")),
            LNS_TEST_IMAGE=image,
            PATH=os.environ["PATH"],
        ),
    }
    ended = {name: process.communicate(timeout=200) for name, process in started.items()}
    codes = {name: process.returncode for name, process in started.items()}

    assert codes == {"tools": 0, "approve": 0, "step": 3, "fork": 0, "fixture": 0}, ended
    answers = [json.loads(line) for line in ended["tools"][0].splitlines()]
    assert [one["code"] for one in answers] == [0, 0, 1]
    assert answers[1]["output"] == "0 1 1 2 3 5 8 13 21 34 "
    assert "No such file" in answers[2]["error"]
    assert "models.example.com: allowed" in ended["approve"][0]
    assert "collect.example.net: denied" in ended["approve"][0]
    assert "collect.example.net Connection refused" in ended["approve"][0]
    assert ended["step"][0] == "checked\n"
    *tries, best = ended["fork"][0].splitlines()
    begins = {json.loads(line)["begin"] for line in tries}
    assert len(begins) == len(tries) == 3, "each begins where chance puts it"
    assert best.removeprefix("best: ") in {json.loads(line)["run"] for line in tries}
    assert "1 passed" in ended["fixture"][0]
    assert lns.ok("ps", "-aq") == ""
    rows = lns.ok("snapshot", "ls", "--format", "json").splitlines()
    assert [row for row in rows if json.loads(row)["name"]] == []
