"""Settings of the VM runner that cannot be used, and the words that say why."""

from pathlib import Path

import pytest

from services.chassis.settings_tree import load
from services.core.errors import SettingsInvalid
from services.vm_runner.settings import VmProcess

ENVIRONMENT = {"HOME": "/h"}


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("vmm_user_count", "0", "must be between 1 and"),
        ("vmm_user_first", "-1", "must be between 1 and"),
        ("boots_at_once", "-1", "must be between 0 and"),
        ("machines_ahead", "9", "must be between 0 and 8"),
        ("pids", "0", "must be between 1 and"),
        ("probe_time", "0s", "must be at least 1ms"),
        ("boot_time", "0s", "must be at least 1ms"),
        ("stall_time", "0s", "must be at least 1ms"),
        ("disk", "0B", "must be at least 16MiB"),
        ("log", "0B", "must be at least 4KiB"),
        ("audit", "1B", "must be at least 4KiB"),
        ("egress_range", "10.0.0.0/24", "smaller than a /17"),
        ("egress_range", "nowhere", "nowhere"),
        ("egress_names", "a=b", "'b' does not appear to be"),
        ("egress_authorities", "host", "is not HOST=FILE"),
    ],
)
def test_a_value_that_no_run_could_have_is_refused(setting: str, value: str, said: str) -> None:
    variable = f"LNS_VM_RUNNER__{setting.upper()}"

    with pytest.raises(SettingsInvalid) as caught:
        load(VmProcess, file=None, environment={**ENVIRONMENT, variable: value})

    (found,) = caught.value.violations
    assert found.subject == variable
    assert said in found.description


def test_users_beyond_the_last_are_refused_as_a_pair() -> None:
    given = {"LNS_VM_RUNNER__VMM_USER_FIRST": "4294967000"}

    with pytest.raises(SettingsInvalid, match="are not a range of users"):
        load(VmProcess, file=None, environment={**ENVIRONMENT, **given})


def test_several_bad_values_are_one_answer(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("vm_runner: {pids: 0, disk: 0B, accelerator: hvf, materializer: {timeout: 0s}}")

    with pytest.raises(SettingsInvalid) as caught:
        load(VmProcess, file=file, environment=ENVIRONMENT)

    assert {one.subject for one in caught.value.violations} == {
        *("vm_runner.pids", "vm_runner.disk", "vm_runner.accelerator"),
        "vm_runner.materializer.timeout",
    }
