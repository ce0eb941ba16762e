"""Named places where the services are, so that one client serves laptop, server and cluster.

A context is one flat YAML file, `contexts/NAME.yaml` beside the client's configuration, with its
endpoints and the paths of its certificates. Which one is in use is the configuration key `context`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from lns.client.connection.config_file import read_config, write_config
from services.core.errors import NameTaken, SettingsInvalid

DEFAULT = "default"
"""The context that no file has: what `lns config` and the environment say, else the suite."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_OWN = ("endpoint-", "tls-")


def is_context_name(text: str) -> bool:
    """Says whether a context may be called so: letters, digits, `_`, `.`, `-`; at most 63."""
    return _NAME.fullmatch(text) is not None


def context_file(config: Path, name: str) -> Path:
    """Returns where the context of a name is kept, beside the file of the configuration.

    Raises:
        SettingsInvalid: no context may be called so.
    """
    if not is_context_name(name) or name == DEFAULT:
        raise SettingsInvalid(
            f"{name!r} cannot be the name of a context",
            hint="use up to 63 letters, digits, `_`, `.` and `-`; `default` is what is configured",
        )
    return config.with_name("contexts") / f"{name}.yaml"


def context_names(config: Path) -> list[str]:
    """Returns the names of the contexts that are kept, sorted."""
    return sorted(path.stem for path in config.with_name("contexts").glob("*.yaml"))


def read_context(config: Path, name: str) -> Mapping[str, str]:
    """Returns what a context configures.

    Raises:
        SettingsInvalid: no such context exists, or its file cannot be used.
    """
    path = context_file(config, name)
    if not path.exists():
        known = ", ".join([DEFAULT, *context_names(config)])
        raise SettingsInvalid(
            f"the context {name!r} does not exist", hint=f"the contexts are {known}"
        )
    return read_config(path)


def add_context(config: Path, name: str, values: Mapping[str, str]) -> None:
    """Keeps a new context.

    Raises:
        NameTaken: one is called so already.
        SettingsInvalid: none may be called so.
    """
    path = context_file(config, name)
    if path.exists():
        raise NameTaken(
            f"the context {name!r} exists already", hint=f"remove it first: `lns context rm {name}`"
        )
    write_config(path, values)


def remove_context(config: Path, name: str) -> None:
    """Forgets a context; raises SettingsInvalid if it does not exist."""
    read_context(config, name)
    context_file(config, name).unlink(missing_ok=True)


def in_effect(
    config: Path, file: Mapping[str, str], environment: Mapping[str, str]
) -> Mapping[str, str]:
    """Returns the configuration with the context that is in use.

    Its endpoints and certificates are never mixed with others. As docker has it, a context that is
    named for one command wins over endpoints in the environment, and these over `lns context use`.

    Args:
        config: the file of the configuration.
        file: what it says.
        environment: what the environment says on top, by key.

    Raises:
        SettingsInvalid: the context does not exist, or cannot be used.
    """
    values = {**file, **environment}
    name = values.get("context", DEFAULT)
    is_overruled = "context" not in environment and any(
        key.startswith("endpoint-") for key in environment
    )
    if name == DEFAULT or is_overruled:
        return values
    kept = {key: value for key, value in values.items() if not key.startswith(_OWN)}
    return {**kept, **read_context(config, name)}
