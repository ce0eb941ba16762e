"""The client's own configuration: defaults for runs, and where the services are.

One flat YAML file, `$LNS_CONFIG`, else `$XDG_CONFIG_HOME/lns/config.yaml`, else
`~/.config/lns/config.yaml`. An environment variable wins over the file: `LNS_` and the key in
capitals with underscores, `LNS_ENDPOINT_RESOLVER` for `endpoint-resolver`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.context import Context
from services.core.errors import RequestInvalid, SettingsInvalid
from services.core.quantity import parse_cpus, parse_mebibytes

_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?")


def _cpus(text: str) -> bool:
    return parse_cpus(text) > 0


def _size(text: str) -> bool:
    return parse_mebibytes(text) > 0


def _platform(text: str) -> bool:
    return _PLATFORM.fullmatch(text) is not None


def _endpoint(text: str) -> bool:
    return text.startswith(("unix:/", "dns:///")) or re.fullmatch(r"\S+:\d{1,5}", text) is not None


def _some(text: str) -> bool:
    return bool(text)


def _absolute(text: str) -> bool:
    return text.startswith("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One thing that can be configured."""

    name: str
    meaning: str
    example: str
    is_valid: Callable[[str], bool]


def _key(name: str, meaning: str, example: str, is_valid: Callable[[str], bool]) -> Key:
    return Key(name=name, meaning=meaning, example=example, is_valid=is_valid)


KEYS: Mapping[str, Key] = {
    key.name: key
    for key in (
        _key("cpus", "CPUs of a run that names none", "2", _cpus),
        _key("memory", "memory of a run that names none", "2g", _size),
        _key("disk", "writable disk of a run that names none", "10g", _size),
        _key("platform", "platform of images", "linux/amd64", _platform),
        _key("detach-keys", "keys that detach a terminal", "ctrl-p,ctrl-q", _some),
        _key("endpoint-registry-gateway", "address of the registry gateway", "gw:7001", _endpoint),
        _key("endpoint-resolver", "address of the resolver", "resolver:7002", _endpoint),
        _key("endpoint-materializer", "address of the materializer", "node:7003", _endpoint),
        _key("endpoint-vm-runner", "address of the VM runner", "unix:/run/vm.sock", _endpoint),
        _key(
            "tls-authority", "PEM file with the services' authority", "/etc/lns/ca.pem", _absolute
        ),
        _key("tls-certificate", "PEM file with this client's certificate", "/…/me.pem", _absolute),
        _key("tls-key", "PEM file with its private key", "/…/me.key", _absolute),
    )
}


def config_path(context: Context) -> Path:
    """Returns where the file is, or would be."""
    if context.is_set("LNS_CONFIG"):
        return Path(context.environment["LNS_CONFIG"])
    base = context.environment.get("XDG_CONFIG_HOME", "")
    directory = Path(base) if base.startswith("/") else context.user_home / ".config"
    return directory / "lns" / "config.yaml"


def load_config(context: Context) -> Mapping[str, str]:
    """Returns what is configured, by key: the file, with the environment on top.

    Raises:
        SettingsInvalid: the file is not what `lns config` writes, or a value cannot be used.
    """
    values = {**read_config(config_path(context)), **_from_environment(context)}
    for name, value in values.items():
        check_value(name, value)
    return values


def read_config(path: Path) -> dict[str, str]:
    """Returns what the file says, nothing if there is none.

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


def find_key(name: str) -> Key:
    """Returns the key of a name.

    Raises:
        SettingsInvalid: there is none; the hint lists all.
    """
    key = KEYS.get(name)
    if key is None:
        raise SettingsInvalid(
            f"there is no configuration key {name!r}", hint=f"there are: {', '.join(KEYS)}"
        )
    return key


def check_value(name: str, value: str) -> None:
    """Makes sure that a key can have a value.

    Raises:
        SettingsInvalid: it cannot.
    """
    key = find_key(name)
    try:
        is_valid = key.is_valid(value)
    except RequestInvalid:
        is_valid = False
    if not is_valid:
        raise SettingsInvalid(
            f"{value!r} cannot be the value of {name}", hint=f"write for example {key.example}"
        )


def _from_environment(context: Context) -> dict[str, str]:
    found = {}
    for name in KEYS:
        variable = f"LNS_{name.upper().replace('-', '_')}"
        if context.is_set(variable):
            found[name] = context.environment[variable]
    return found


def _unreadable(path: Path, why: str) -> SettingsInvalid:
    return SettingsInvalid(
        f"{path} cannot be used: {why}",
        hint="correct it, or remove it and set its values with `lns config set`",
        metadata={"path": str(path)},
    )
