"""What the command line says of this machine and its services."""

from pathlib import Path

import pytest
from lns.registry.v1 import registry_service_pb2 as pb
from lns.vm.v1 import vm_service_pb2 as vm_pb

from cli.app import dispatch
from lns.client.connection.config_keys import KEYS
from tests.behaviour.cli.conftest import Client
from tests.support.scripted_services import ScriptedServices


@pytest.mark.parametrize(
    ("verdict", "code"),
    [(vm_pb.HostCheck.VERDICT_WARNING, 0), (vm_pb.HostCheck.VERDICT_FAILED, 1)],
)
def test_the_doctor_says_what_to_do(
    services: ScriptedServices,
    lns: Client,
    verdict: vm_pb.HostCheck.Verdict.ValueType,
    code: int,
) -> None:
    check = vm_pb.HostCheck(name="kvm", verdict=verdict, detail="hangs", remedy="use another")
    services["GetHost"] = vm_pb.GetHostResponse(checks=[check])
    services["ListLogins"] = pb.ListLoginsResponse(logins=[pb.StoredLogin(registry="r.example")])

    result = lns("doctor", NO_COLOR="1", HTTPS_PROXY="http://me:hunter2@proxy.example:1")

    assert result.code == code
    assert "HTTPS_PROXY http://proxy.example:1" in result.out
    assert "hunter2" not in result.out
    assert "kvm              hangs" in result.out
    assert "→ use another" in result.out
    assert "r.example" in result.out
    assert "\x1b" not in result.out


def test_the_doctor_says_when_no_service_answers(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    endpoints = [key for key in KEYS if key.startswith("endpoint-")]
    variables = {
        f"LNS_{key.upper().replace('-', '_')}": f"unix:{tmp_path}/nobody.sock" for key in endpoints
    }

    assert dispatch(["doctor"], {"HOME": str(tmp_path), **variables}) == 1
    assert "failed   services" in capfd.readouterr().out


def test_services_that_do_not_run_are_reported_in_words(lns: Client, short_directory: Path) -> None:
    peers = ("REGISTRY_GATEWAY", "RESOLVER", "MATERIALIZER", "VM_RUNNER")
    own = {f"LNS_ENDPOINT_{one}": "" for one in peers}  # the suite is looked at where none is set
    result = lns("service", "status", LNS_HOME=str(short_directory / "none"), **own)

    lines = dict(line.split(":", 1) for line in result.out.splitlines())
    assert result.code == 1
    assert (lines["running"].strip(), lines["pid"].strip()) == ("no", "-")
    assert lines["state directory"] == f" {short_directory}/none"
