"""The client's own configuration: defaults for runs, and where the services are.

One flat YAML file, `$LNS_CONFIG`, else `$XDG_CONFIG_HOME/lns/config.yaml`, else
`~/.config/lns/config.yaml`. An environment variable wins over the file: `LNS_` and the key in
capitals with underscores, `LNS_ENDPOINT_RESOLVER` for `endpoint-resolver`. `config_keys` has the
keys; most users have configured nothing, and their commands do not import it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lns.client.connection.caller import Caller
from services.core.errors import SettingsInvalid

_PREFIX = "LNS_"
_OTHERS = {"LNS_HOME", "LNS_CONFIG", "LNS_DEBUG", "LNS_DESK"}


def config_path(context: Caller) -> Path:
    """Returns where the file is, or would be."""
    if context.is_set("LNS_CONFIG"):
        return Path(context.environment["LNS_CONFIG"])
    base = context.environment.get("XDG_CONFIG_HOME", "")
    directory = Path(base) if base.startswith("/") else context.user_home / ".config"
    return directory / "lns" / "config.yaml"


def load_config(context: Caller) -> Mapping[str, str]:
    """Returns what is configured, by key: the file, with the environment on top.

    Raises:
        SettingsInvalid: the file is not what `lns config` writes, or a value cannot be used.
    """
    path = config_path(context)
    file, environment = read_config(path), _from_environment(context)
    values: Mapping[str, str] = {**file, **environment}
    if "context" in values:
        from lns.client.connection.contexts import in_effect  # noqa: PLC0415 - see above

        values = in_effect(path, file, environment)
    if values:
        from lns.client.connection.config_keys import check_value  # noqa: PLC0415 - see above

        for name, value in values.items():
            check_value(name, value)
    return values


def read_config(path: Path) -> dict[str, str]:
    """Returns what the file says, nothing if it is missing.

    Raises:
        SettingsInvalid: it cannot be read, is not a flat mapping, or has an unknown key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error
    import yaml  # noqa: PLC0415 - only for those who have a file

    from lns.client.connection.config_keys import find_key  # noqa: PLC0415 - the same

    try:
        document: Any = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise _unreadable(path, " ".join(str(error).split())) from error
    if not isinstance(document, dict) or not all(
        isinstance(value, (str, int, float)) for value in document.values()
    ):
        raise _unreadable(path, "it is not a flat mapping of keys to values")
    values = {str(key): str(value) for key, value in document.items()}
    for name in values:
        find_key(name)
    return values


def write_config(path: Path, values: Mapping[str, str]) -> None:
    """Replaces the file as a whole, making its directory."""
    import yaml  # noqa: PLC0415 - only for those who change the file

    from services.chassis.durable import write_bytes  # noqa: PLC0415 - the same

    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(dict(values), sort_keys=True, allow_unicode=True) if values else ""
    write_bytes(path, text.encode(), mode=0o600)


def _from_environment(context: Caller) -> dict[str, str]:
    given = {name for name in context.environment if name.startswith(_PREFIX)}
    if given <= _OTHERS:
        return {}
    from lns.client.connection.config_keys import KEYS  # noqa: PLC0415 - see above

    variables = {key: f"{_PREFIX}{key.upper().replace('-', '_')}" for key in KEYS}
    return {
        key: context.environment[variable]
        for key, variable in variables.items()
        if context.is_set(variable)
    }


def _unreadable(path: Path, why: str) -> SettingsInvalid:
    return SettingsInvalid(
        f"{path} cannot be used: {why}",
        hint="correct it, or remove it and set its values with `lns config set`",
        metadata={"path": str(path)},
    )
