"""The variables of a client's environment that its calls depend on, and their way to a service.

A suite lives longer than the shell that started it: what a later client sets (another file of
logins, a proxy) must count for that client's calls, as if it had started the suite itself. So the
variables go with each call, over a unix socket only, whose other end is the same owner; a service
that listens on TCP takes none from its callers.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from services.core.errors import SettingsInvalid

KEY: Final = "lns-environment-bin"
"""The metadata that carries the variables: a JSON object."""

PATHS: Final = ("LNS_REGISTRY_AUTH_PATH", "REGISTRY_AUTH_FILE", "DOCKER_CONFIG")
_PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
VARIABLES: Final = (
    "HOME",
    "XDG_RUNTIME_DIR",
    "DOCKER_HOST",
    "LNS_REGISTRY_PLAIN_HTTP",
    *PATHS,
    *_PROXIES,
    *(name.lower() for name in _PROXIES),
)
"""Every variable that goes with a call."""

_MAX_BYTES: Final = 32 * 1024


def encode(environment: Mapping[str, str], *, directory: Path) -> bytes:
    """Returns the variables of an environment for `KEY`.

    Args:
        environment: of the client's process.
        directory: what relative paths are relative to: the client's own.

    Raises:
        SettingsInvalid: they are longer than 32 KiB.
    """
    sent = {name: environment[name] for name in VARIABLES if environment.get(name)}
    for name in PATHS:
        if name in sent:
            sent[name] = str(directory / sent[name])
    data = json.dumps(sent).encode("utf-8", "surrogateescape")
    if len(data) > _MAX_BYTES:
        longest = max(sent, key=lambda name: len(sent[name]))
        raise SettingsInvalid(f"the variable {longest} is longer than lns can pass on")
    return data


def decode(data: object) -> Mapping[str, str] | None:
    """Returns the variables that came with a call, or None where none did or they are no such."""
    if not isinstance(data, bytes) or len(data) > _MAX_BYTES:
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return {name: found[name] for name in VARIABLES if isinstance(found.get(name), str)}
