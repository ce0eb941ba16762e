"""The credential helpers and files of the tests are understood by other clients of registries."""

import subprocess
from pathlib import Path

from tests.support.credential_helpers import Login, write_containers_auth, write_helper

HOST = "registry.example:5000"
LOGIN = Login(username="lns", secret="correct horse")


def test_an_independent_client_logs_in_with_each_of_them(tmp_path: Path) -> None:
    helper = write_helper(tmp_path / "bin", logins={HOST: LOGIN})
    path = write_containers_auth(tmp_path / "auth.json", cred_helpers={HOST: helper})
    skopeo = ["skopeo", "login", "--get-login", "--authfile"]
    search = {"PATH": f"{helper.folder}:/usr/bin:/bin"}

    def name_in(file: Path) -> str:
        done = subprocess.run(
            [*skopeo, file, HOST], env=search, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert name_in(path) == "lns"
    assert helper.calls[-1] == ("get", HOST)
    plain = write_containers_auth(tmp_path / "plain.json", auths={HOST: LOGIN})
    assert name_in(plain) == "lns"
