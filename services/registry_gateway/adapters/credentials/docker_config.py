"""Logins that other tools keep: Docker's `config.json` and the `auth.json` of podman and skopeo.

Both name registries in `auths` (values `auth`, `username`/`password` or `identitytoken`), and
programs that keep secrets in `credHelpers` and `credsStore`. A key of `auths` with a path stands
for what lies below it: the longest first (containers-auth.json(5)), and before anything that is
said of its host. Files are read when asked for, since other tools change them; what is wrong with
one is logged and never stops a pull.
"""

import base64
import binascii
import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from services.registry_gateway.login_ports import Credential

log = structlog.get_logger()

_MAX_BYTES: Final = 1 << 20
_HELPER_SECONDS: Final = 10.0
_HELPER_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_HUB_KEYS: Final = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")
_IDENTITY_TOKEN: Final = "<token>"  # noqa: S105 - what helpers say instead of a user name


class DockerConfig:
    """One such file; implements `CredentialSource`."""

    def __init__(self, path: Path, *, name: str) -> None:
        """Touches nothing yet.

        Args:
            path: the file; it may be absent.
            name: its name in messages to users.
        """
        self._path = path
        self._name = name

    def find(self, host: str, repository: str = "") -> Credential | None:
        """See `CredentialSource`."""
        return self._find(host, repository, [])

    def problems(self, host: str, repository: str = "") -> Sequence[str]:
        """See `CredentialSource`."""
        problems: list[str] = []
        self._find(host, repository, problems)
        return list(dict.fromkeys(problems))

    def _find(self, host: str, repository: str, problems: list[str]) -> Credential | None:
        document = self._read(problems)
        auths = _mapping(document, "auths")
        for namespace in _namespaces(host, repository):
            found = self._of_entry(auths.get(namespace), problems)
            if found is not None:
                return found
        keys = _HUB_KEYS if host == "docker.io" else (host,)
        helpers = _mapping(document, "credHelpers")
        # An empty name says that this host has no helper, whatever `credsStore` says.
        helper = next((helpers[key] for key in keys if key in helpers), document.get("credsStore"))
        if helper:
            found = self._ask(helper, keys[0], problems)
            if found is not None:
                return found
        for key, entry in auths.items():
            if key in keys or _host_of(key) in keys:
                found = self._of_entry(entry, problems)
                if found is not None:
                    return found
        return None

    def _of_entry(self, entry: object, problems: list[str]) -> Credential | None:
        if not isinstance(entry, dict):
            return None
        token = entry.get("identitytoken")
        if isinstance(token, str) and token:
            return Credential(username="", secret=token, stored_in=self._name)
        username, secret = entry.get("username"), entry.get("password")
        encoded = entry.get("auth")
        if isinstance(encoded, str) and encoded:
            try:
                # As Docker's decoder does, without line ends.
                compact = encoded.replace("\r", "").replace("\n", "")
                text = base64.b64decode(compact, validate=True).decode("utf-8")
            except (binascii.Error, UnicodeDecodeError):
                problems.append(f"the `auth` of a registry in {self._path} is no login")
                return None
            username, _, secret = text.partition(":")
            secret = secret.rstrip("\0")
        if isinstance(username, str) and isinstance(secret, str) and username and secret:
            return Credential(username=username, secret=secret, stored_in=self._name)
        return None

    def _ask(self, helper: object, key: str, problems: list[str]) -> Credential | None:
        """Asks a program `docker-credential-<helper>`, as Docker does."""
        if not isinstance(helper, str) or not _HELPER_NAME.match(helper):
            problems.append(f"{self._path} names a credential helper that cannot be one")
            return None
        program = f"docker-credential-{helper}"
        try:
            done = subprocess.run(
                [program, "get"],
                input=key.encode("utf-8"),
                capture_output=True,
                timeout=_HELPER_SECONDS,
                check=True,
            )
            answer = json.loads(done.stdout[:_MAX_BYTES])
            username, secret = answer["Username"], answer["Secret"]
        except subprocess.CalledProcessError as error:
            if b"not found" not in error.stdout.lower():  # how helpers say that they have nothing
                problems.append(f"{program} failed with the exit code {error.returncode}")
            return None
        except FileNotFoundError:
            problems.append(f"{program}, which {self._path} names, is not installed")
            return None
        except (OSError, subprocess.TimeoutExpired, ValueError, LookupError, TypeError) as error:
            # Only the class: the text of a JSON error may hold what the helper printed.
            log.warning("credential_helper_failed", helper=program, error=type(error).__name__)
            late = isinstance(error, subprocess.TimeoutExpired)
            problems.append(f"{program} {'does not answer' if late else 'gave no usable answer'}")
            return None
        if not isinstance(username, str) or not isinstance(secret, str) or not secret:
            return None
        name = "" if username == _IDENTITY_TOKEN else username
        return Credential(username=name, secret=secret, stored_in=program)

    def _read(self, problems: list[str]) -> Mapping[str, Any]:
        try:
            with self._path.open("rb") as file:
                document = json.loads(file.read(_MAX_BYTES))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            log.warning(
                "credential_file_unreadable", file=str(self._path), error=type(error).__name__
            )
            problems.append(
                f"{self._path} cannot be read: {error.strerror}"
                if isinstance(error, OSError)
                else f"{self._path} is not JSON"
            )
            return {}
        if not isinstance(document, dict):
            problems.append(f"{self._path} is not a JSON object")
            return {}
        return document


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _namespaces(host: str, repository: str) -> Iterator[str]:
    """Yields the keys with a path that stand for a repository, the most specific first."""
    while repository:
        yield f"{host}/{repository}"
        repository = repository.rpartition("/")[0]


def _host_of(key: str) -> str:
    """Returns the host of a key such as `https://registry.example/v2/` or `registry.example/v1/`.

    Docker takes the host of any key whose path is that of an API; other paths are namespaces.
    """
    scheme, separator, rest = key.partition("://")
    host, _, path = (rest if separator else scheme).partition("/")
    return host if separator or path.strip("/") in ("", "v1", "v2") else key
