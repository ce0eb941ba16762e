"""The helpers speak Docker's protocol and the files are as the tools write them."""

import base64
import json
import subprocess
from pathlib import Path

import pytest

from tests.support.credential_helpers import (
    IDENTITY_TOKEN_USERNAME,
    NOT_FOUND,
    Behaviour,
    CredentialHelper,
    Login,
    write_containers_auth,
    write_docker_config,
    write_helper,
)

HOST = "registry.example:5000"
LOGIN = Login(username="lns", secret="correct horse")


def call(
    helper: CredentialHelper, action: str, request: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [helper.program, action],
        input=request,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )


def test_helper_gives_what_it_keeps(tmp_path: Path) -> None:
    helper = write_helper(tmp_path / "bin", logins={HOST: LOGIN})

    answered = call(helper, "get", HOST)

    assert answered.returncode == 0
    assert json.loads(answered.stdout) == {
        "ServerURL": HOST,
        "Username": "lns",
        "Secret": "correct horse",
    }
    assert helper.calls == [("get", HOST)]


def test_helper_says_so_when_it_keeps_nothing(tmp_path: Path) -> None:
    answered = call(write_helper(tmp_path), "get", "elsewhere.example")

    assert (answered.returncode, answered.stdout.strip()) == (1, NOT_FOUND)


def test_helper_stores_lists_and_erases(tmp_path: Path) -> None:
    helper = write_helper(tmp_path)
    entry = {"ServerURL": HOST, "Username": "lns", "Secret": "s"}

    assert call(helper, "store", json.dumps(entry)).returncode == 0
    assert json.loads(call(helper, "list").stdout) == {HOST: "lns"}
    assert helper.logins == {HOST: Login(username="lns", secret="s")}
    assert call(helper, "erase", HOST).returncode == 0
    assert helper.logins == {}


def test_helper_gives_an_identity_token_under_its_reserved_name(tmp_path: Path) -> None:
    helper = write_helper(tmp_path, logins={HOST: Login.identity_token("eyJ")})

    answered = json.loads(call(helper, "get", HOST).stdout)

    assert (answered["Username"], answered["Secret"]) == (IDENTITY_TOKEN_USERNAME, "eyJ")


@pytest.mark.parametrize(
    ("behaviour", "code", "output", "error"),
    [
        (Behaviour.CRASHES, 1, "", "something broke\n"),
        (Behaviour.BABBLES, 0, "{not JSON\n", ""),
    ],
)
def test_helper_misbehaves_on_demand(
    tmp_path: Path, behaviour: Behaviour, code: int, output: str, error: str
) -> None:
    answered = call(write_helper(tmp_path, logins={HOST: LOGIN}, behaviour=behaviour), "get", HOST)

    assert (answered.returncode, answered.stdout, answered.stderr) == (code, output, error)


def test_helper_can_hang(tmp_path: Path) -> None:
    helper = write_helper(tmp_path, logins={HOST: LOGIN}, behaviour=Behaviour.HANGS)

    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([helper.program, "get"], input=b"", timeout=0.5, check=False)


def test_docker_config_keeps_logins_and_identity_tokens_privately(tmp_path: Path) -> None:
    folder = write_docker_config(
        tmp_path / "docker", auths={HOST: LOGIN}, identity_tokens={"token.example": "eyJ"}
    )

    file = folder / "config.json"
    auths = json.loads(file.read_text())["auths"]
    assert base64.b64decode(auths[HOST]["auth"]) == b"lns:correct horse"
    assert auths["token.example"]["identitytoken"] == "eyJ"
    assert file.stat().st_mode & 0o777 == 0o600


def test_docker_config_names_its_helpers(tmp_path: Path) -> None:
    store = write_helper(tmp_path / "bin", "vault", logins={HOST: LOGIN})
    other = write_helper(tmp_path / "bin", "other")

    folder = write_docker_config(
        tmp_path / "docker", creds_store=store, cred_helpers={"special.example": other}
    )

    document = json.loads((folder / "config.json").read_text())
    assert document["credsStore"] == "vault"
    assert document["credHelpers"] == {"special.example": "other"}
    assert document["auths"] == {HOST: {}}


def test_containers_auth_may_name_a_repository(tmp_path: Path) -> None:
    path = write_containers_auth(tmp_path / "run" / "auth.json", auths={f"{HOST}/team": LOGIN})

    assert json.loads(path.read_text())["auths"][f"{HOST}/team"]["auth"] == LOGIN.encoded
    assert path.stat().st_mode & 0o777 == 0o600
