"""The client's own configuration: defaults for runs, and where the services are.

One flat YAML file, `$LNS_CONFIG`, else `$XDG_CONFIG_HOME/lns/config.yaml`, else
`~/.config/lns/config.yaml`. An environment variable wins over the file: `LNS_` and the key in
capitals with underscores, `LNS_ENDPOINT_RESOLVER` for `endpoint-resolver`. `config_keys` has the
keys; most users have configured nothing, and their commands do not import it.
"""

from collections.abc import Mapping
from pathlib import Path

from lns.client.connection.caller import Caller
from lns.client.connection.config_file import read_config
from lns.client.connection.contexts import in_effect

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
        values = in_effect(path, file, environment)
    if values:
        from lns.client.connection.config_keys import check_value  # noqa: PLC0415 - see above

        for name, value in values.items():
            check_value(name, value)
    return values


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
