"""Credentials of other tools, for tests: Docker's credential helpers and config, `auth.json`.

A helper is a real program `docker-credential-NAME` that keeps its secrets in a file beside it and
speaks the protocol of docker-credential-helpers: `get`, `store`, `erase` or `list` as its argument,
the request on standard input. It also notes every call. A test puts `folder` in front of `PATH`.
"""

import base64
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

NOT_FOUND = "credentials not found in native keychain"
IDENTITY_TOKEN_USERNAME = "<token>"
"""User name with which helpers return an identity token."""

# -I and -S: no environment, no site-packages; a helper is to start fast and alike everywhere.
_PROGRAM = """\
#!{python} -IS
import json, sys, time
from pathlib import Path

folder, name, behaviour = Path({folder!r}), {name!r}, {behaviour!r}
store = folder / (name + ".json")
action, request = sys.argv[1], sys.stdin.read()
with (folder / (name + ".calls")).open("a") as calls:
    calls.write(json.dumps([action, request]) + "\\n")
if behaviour == "hangs":
    time.sleep(600)
if behaviour == "crashes":
    sys.exit("something broke")
if behaviour == "babbles":
    print("{{not JSON")
    sys.exit()
secrets = json.loads(store.read_text())
if action == "list":
    print(json.dumps({{server: one["Username"] for server, one in secrets.items()}}))
elif action == "store":
    entry = json.loads(request)
    secrets[entry.pop("ServerURL")] = entry
elif request.strip() not in secrets:
    print({not_found!r})
    sys.exit(1)
elif action == "get":
    print(json.dumps({{"ServerURL": request.strip(), **secrets[request.strip()]}}))
elif action == "erase":
    del secrets[request.strip()]
store.write_text(json.dumps(secrets))
"""


class Behaviour(StrEnum):
    """What a helper does with a call."""

    WORKS = "works"
    CRASHES = "crashes"
    """Exits with 1 and a message on standard error."""
    BABBLES = "babbles"
    """Prints what is no JSON, and exits with 0."""
    HANGS = "hangs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a registry is shown."""

    username: str
    secret: str

    @classmethod
    def identity_token(cls, token: str) -> Self:
        """An identity token, as helpers return one."""
        return cls(username=IDENTITY_TOKEN_USERNAME, secret=token)

    @property
    def encoded(self) -> str:
        """Value of `auth` in a file."""
        return base64.b64encode(f"{self.username}:{self.secret}".encode()).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialHelper:
    """A program `docker-credential-NAME` that was written."""

    name: str
    """What stands in `credsStore` and `credHelpers`."""
    program: Path

    @property
    def folder(self) -> Path:
        """What has to be in `PATH`."""
        return self.program.parent

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Action and request of every call, in order."""
        noted = self.folder / f"{self.name}.calls"
        if not noted.exists():
            return []
        lines = noted.read_text().splitlines()
        return [(action, request) for action, request in map(json.loads, lines)]

    @property
    def logins(self) -> dict[str, Login]:
        """What it keeps, by server."""
        kept = json.loads((self.folder / f"{self.name}.json").read_text())
        return {
            server: Login(username=one["Username"], secret=one["Secret"])
            for server, one in kept.items()
        }


def write_helper(
    folder: Path,
    name: str = "vault",
    *,
    logins: Mapping[str, Login] | None = None,
    behaviour: Behaviour = Behaviour.WORKS,
) -> CredentialHelper:
    """Writes a helper.

    Args:
        folder: where; made if it is not there.
        name: its name, `docker-credential-` left out.
        logins: what it keeps, by server as clients will ask for it.
        behaviour: what it does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        server: {"Username": login.username, "Secret": login.secret}
        for server, login in (logins or {}).items()
    }
    (folder / f"{name}.json").write_text(json.dumps(kept))
    program = folder / f"docker-credential-{name}"
    program.write_text(
        _PROGRAM.format(
            python=sys.executable,
            folder=str(folder),
            name=name,
            behaviour=str(behaviour),
            not_found=NOT_FOUND,
        )
    )
    program.chmod(0o755)
    return CredentialHelper(name=name, program=program)


def write_docker_config(
    folder: Path,
    *,
    auths: Mapping[str, Login] | None = None,
    identity_tokens: Mapping[str, str] | None = None,
    creds_store: CredentialHelper | None = None,
    cred_helpers: Mapping[str, CredentialHelper] | None = None,
) -> Path:
    """Writes `config.json` as Docker does and returns its folder, the value of `DOCKER_CONFIG`.

    Args:
        folder: where; made if it is not there.
        auths: logins kept in the file, by key as it is to stand there: a host, or an address.
        identity_tokens: identity tokens kept in the file, by key.
        creds_store: the helper for all registries; Docker leaves an empty entry for each login.
        cred_helpers: helpers by registry.
    """
    document: dict[str, object] = {"auths": _auths(auths or {}, identity_tokens or {})}
    if creds_store is not None:
        document["auths"] = {server: {} for server in creds_store.logins} | _auths(
            auths or {}, identity_tokens or {}
        )
        document["credsStore"] = creds_store.name
    if cred_helpers:
        document["credHelpers"] = {host: helper.name for host, helper in cred_helpers.items()}
    _write_private(folder / "config.json", document)
    return folder


def write_containers_auth(
    path: Path,
    *,
    auths: Mapping[str, Login] | None = None,
    identity_tokens: Mapping[str, str] | None = None,
    cred_helpers: Mapping[str, CredentialHelper] | None = None,
) -> Path:
    """Writes an `auth.json` as podman and skopeo do; returns the path, for `REGISTRY_AUTH_FILE`.

    Keys may be a host or, which Docker does not know, `host/repository`.
    """
    document: dict[str, object] = {"auths": _auths(auths or {}, identity_tokens or {})}
    if cred_helpers:
        document["credHelpers"] = {host: helper.name for host, helper in cred_helpers.items()}
    _write_private(path, document)
    return path


def _auths(logins: Mapping[str, Login], tokens: Mapping[str, str]) -> dict[str, dict[str, str]]:
    entries = {key: {"auth": login.encoded} for key, login in logins.items()}
    # Docker writes a made-up `auth` beside an identity token.
    filler = Login(username="00000000-0000-0000-0000-000000000000", secret="").encoded
    entries |= {key: {"auth": filler, "identitytoken": token} for key, token in tokens.items()}
    return entries


def _write_private(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent="\t"))
    path.chmod(0o600)
