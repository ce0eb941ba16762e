import json
from pathlib import Path

import pytest
import trustme

from cli.app import dispatch
from cli.context import Context
from cli.desk.launcher import is_for_desk
from lns.client.connection.config import load_config
from lns.client.connection.session import is_elsewhere
from services.core.errors import SettingsInvalid


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "LNS_CONFIG": str(tmp_path / "config.yaml")}


def create(environment: dict[str, str], name: str, address: str, *more: str) -> int:
    return dispatch(["context", "create", name, "--vm-runner", address, *more], environment)


def endpoint(environment: dict[str, str], **variables: str) -> str | None:
    return load_config(Context(environment=environment | variables)).get("endpoint-vm-runner")


def test_a_context_is_created_used_shown_and_removed(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert create(environment, "cluster", "vm.cluster:7004") == 0
    assert endpoint(environment) is None
    assert dispatch(["context", "use", "cluster"], environment) == 0
    assert endpoint(environment) == "vm.cluster:7004"
    capsys.readouterr()
    assert dispatch(["context", "show", "--format", "json"], environment) == 0
    assert json.loads(capsys.readouterr().out)["endpoint-vm-runner"] == "vm.cluster:7004"
    assert dispatch(["context", "ls", "--format", "{{.Name}} {{.Current}}"], environment) == 0
    assert capsys.readouterr().out.split("\n")[:2] == ["cluster *", "default "][::-1]
    assert dispatch(["context", "rm", "cluster"], environment) == 1
    assert "is in use" in capsys.readouterr().err
    assert dispatch(["context", "use", "default"], environment) == 0
    assert dispatch(["context", "rm", "cluster"], environment) == 0
    assert endpoint(environment) is None


def test_a_context_for_one_command_wins_over_variables_and_these_over_the_one_in_use(
    environment: dict[str, str],
) -> None:
    create(environment, "one", "one:1")
    create(environment, "two", "two:2")
    dispatch(["context", "use", "one"], environment)
    variable = {"LNS_ENDPOINT_VM_RUNNER": "three:3"}

    assert endpoint(environment) == "one:1"
    assert endpoint(environment, **variable) == "three:3"
    assert endpoint(environment, LNS_CONTEXT="two", **variable) == "two:2"
    assert endpoint(environment, LNS_CONTEXT="default", **variable) == "three:3"


def test_the_option_of_lns_is_the_variable(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    create(environment, "two", "two:2")
    capsys.readouterr()

    assert dispatch(["--context", "two", "config", "get", "endpoint-vm-runner"], environment) == 0
    assert capsys.readouterr().out == "two:2\n"
    assert dispatch(["--context", "three", "config", "list"], environment) == 1
    assert "the contexts are default, two" in capsys.readouterr().err


def test_endpoints_and_certificates_of_a_context_are_never_mixed_with_others(
    environment: dict[str, str],
) -> None:
    dispatch(["config", "set", "endpoint-resolver", "other:1"], environment)
    dispatch(["config", "set", "cpus", "3"], environment)
    create(environment, "one", "one:1")

    values = load_config(Context(environment=environment | {"LNS_CONTEXT": "one"}))

    assert values == {"endpoint-vm-runner": "one:1", "cpus": "3", "context": "one"}


@pytest.mark.parametrize("name", ["default", "../x", "", "a/b", ".hidden", "x" * 64])
def test_a_context_cannot_be_called_so(environment: dict[str, str], name: str) -> None:
    assert create(environment, name, "one:1") == 1


def test_a_name_is_taken_once_and_addresses_are_checked(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert create(environment, "one", "one:1") == 0
    assert create(environment, "one", "two:1") == 1
    assert create(environment, "two", "nowhere") == 1
    assert dispatch(["context", "create", "three"], environment) == 1
    assert "lns context rm one" in capsys.readouterr().err


def test_a_certificate_that_cannot_be_used_is_refused_at_once(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authority = trustme.CA()
    files = []
    for number in range(2):
        issued = authority.issue_cert("client")
        certificate, key = tmp_path / f"{number}.crt", tmp_path / f"{number}.key"
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        issued.private_key_pem.write_to_path(str(key))
        files.append((str(certificate), str(key)))
    ca = tmp_path / "ca.crt"
    authority.cert_pem.write_to_path(str(ca))

    def tls(certificate: str, key: str) -> tuple[str, ...]:
        return "--authority", str(ca), "--certificate", certificate, "--key", key

    assert create(environment, "mixed", "one:1", *tls(files[0][0], files[1][1])) == 1
    assert "does not belong to the certificate" in capsys.readouterr().err
    assert create(environment, "half", "one:1", "--authority", str(ca)) == 1
    assert create(environment, "good", "one:1", *tls(*files[0])) == 0


def test_a_context_that_was_removed_meanwhile_is_said(environment: dict[str, str]) -> None:
    with pytest.raises(SettingsInvalid, match="does not exist"):
        endpoint(environment, LNS_CONTEXT="gone")


@pytest.mark.parametrize(
    ("target", "elsewhere"),
    [
        ("unix:/run/lns.sock", False),
        ("localhost:1", False),
        ("127.0.0.9:1", False),
        ("[::1]:1", False),
        ("dns:///localhost:1", False),
        ("vm.cluster:1", True),
        ("dns:///vm.cluster:1", True),
        ("10.0.0.1:1", True),
    ],
)
def test_an_address_of_another_machine_is_known(target: str, elsewhere: bool) -> None:
    assert is_elsewhere(target) is elsewhere


def test_the_desk_finds_the_command_behind_the_options_of_lns() -> None:
    assert not is_for_desk(["--context", "x", "service", "status"], {})
    assert not is_for_desk(["--debug", "service", "status"], {})
    assert not is_for_desk(["--context=x"], {})
