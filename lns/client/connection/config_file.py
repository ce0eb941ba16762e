"""A flat YAML file of configuration keys and values: the client's own, or that of a context."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.core.errors import SettingsInvalid


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


def _unreadable(path: Path, why: str) -> SettingsInvalid:
    return SettingsInvalid(
        f"{path} cannot be used: {why}",
        hint="correct it, or remove it and set its values with `lns config set`",
        metadata={"path": str(path)},
    )
