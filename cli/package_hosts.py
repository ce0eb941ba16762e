"""The hosts that this machine's package managers fetch from, as they say themselves."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from services.core.errors import RequestInvalid

_SECONDS: Final = 20.0
_MAX_CHARACTERS: Final = 64 * 1024

# Where pip fetches from by default, and where it is configured to fetch from here.
_ASK_PIP: Final = """
import json
from pip._internal.configuration import Configuration
from pip._internal.models.index import PyPI
configuration = Configuration(isolated=False)
configuration.load()
urls = [value for key, value in configuration.items() if key.endswith(".index-url")]
print(json.dumps({"index": [PyPI.url, *urls], "files": ["https://" + PyPI.file_storage_domain]}))
"""


def package_hosts(client: str) -> Mapping[str, Sequence[str]]:
    """Returns the hosts for each placeholder of the presets of a package manager.

    Args:
        client: `pip`, `npm` or `apt`.

    Raises:
        RequestInvalid: it is not installed, or does not say where it fetches from.
    """
    try:
        found = _ASKED[client]()
    except (OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
        found = {}
        why = f": {error}" if not isinstance(error, subprocess.CalledProcessError) else ""
    else:
        why = ""
    if not any(found.values()):
        raise RequestInvalid(
            f"{client} on this machine does not say which hosts it fetches from{why}",
            hint="name them yourself: lns policy allow HOST",
        )
    return found


def _pip() -> Mapping[str, Sequence[str]]:
    answer: Mapping[str, list[str]] = {}
    for python in (sys.executable, shutil.which("python3")):
        if python is None:
            continue
        try:
            answer = json.loads(_run(python, "-c", _ASK_PIP))
            break
        except subprocess.CalledProcessError:
            continue  # an environment without pip
    return {f"{kind}.pip.invalid": _hosts(urls) for kind, urls in answer.items()}


def _npm() -> Mapping[str, Sequence[str]]:
    return {"registry.npm.invalid": _hosts([_run("npm", "config", "get", "registry")])}


def _apt() -> Mapping[str, Sequence[str]]:
    sites = _run("apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages")
    return {"mirror.apt.invalid": _hosts(sites.splitlines())}


_ASKED: Mapping[str, Callable[[], Mapping[str, Sequence[str]]]] = {
    "pip": _pip,
    "npm": _npm,
    "apt": _apt,
}


def _run(*command: str) -> str:
    done = subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
    )
    return done.stdout[:_MAX_CHARACTERS]


def _hosts(urls: Iterable[str]) -> list[str]:
    hosts = (urlsplit(url.strip()).hostname for url in urls)
    return list(dict.fromkeys(host for host in hosts if host))
