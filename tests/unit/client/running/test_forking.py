"""What may be asked for with a run that goes on from a snapshot, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from lns.client.order import make_fork
from lns.client.running.forking import fork_request
from lns.client.running.request import PlanFlags
from services.core.errors import RequestInvalid

REFUSED = {
    "cpus": "2",
    "memory": "1g",
    "disk": "1g",
    "mount": ["tools/a"],
    "volume": ["data:/data"],
    "env": ["A=1"],
    "env_file": [Path("file")],
    "workdir": "/work",
    "user": "joe",
    "platform": "linux/arm64",
    "entrypoint": "sh",
    "locked": Path("lock"),
}


@pytest.mark.parametrize(("name", "value"), REFUSED.items())
def test_what_was_decided_when_its_programs_started_is_refused_by_name(
    name: str, value: Any
) -> None:
    with pytest.raises(RequestInvalid, match=f"--{name.replace('_', '-')} cannot be given"):
        fork_request(PlanFlags(**{name: value}), environment={}, config={})


def test_its_own_are_name_labels_ports_and_policy(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("network: {defaultVerdict: deny}")
    flags = PlanFlags(name="try", label=["a=b"], publish=["80:80"], policy=policy)

    asked = fork_request(flags, environment={}, config={"memory": "1g"}).overrides

    assert (asked.name, dict(asked.labels), asked.ports) == ("try", {"a": "b"}, ["80:80"])
    assert asked.policy.text == policy.read_bytes()


def test_a_program_s_options_are_those_of_forks_alone() -> None:
    order = make_fork("warm", {"keep_policy": True, "name": "one"}, environment={}, config={})
    assert (order.from_snapshot, order.keep_policy, order.options.name) == ("warm", True, "one")
    with pytest.raises(RequestInvalid, match="'memory' does not exist"):
        make_fork("warm", {"memory": 256}, environment={}, config={})  # type: ignore[typeddict-unknown-key]  # that is tested
    with pytest.raises(RequestInvalid, match="two policies"):
        make_fork("warm", {"keep_policy": True, "policy": "p"}, environment={}, config={})
