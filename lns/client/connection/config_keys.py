"""What can be configured of the client, and which values it can have."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lns.client.connection.contexts import is_context_name
from services.chassis.settings_values import parse_duration
from services.core.errors import RequestInvalid, SettingsInvalid
from services.core.quantity import parse_cpus, parse_mebibytes

_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?")


def _cpus(text: str) -> bool:
    return parse_cpus(text) > 0


def _size(text: str) -> bool:
    return parse_mebibytes(text) > 0


def _platform(text: str) -> bool:
    return _PLATFORM.fullmatch(text) is not None


def _foreign(text: str) -> bool:
    return text in ("refuse", "emulate")


def _endpoint(text: str) -> bool:
    return text.startswith(("unix:/", "dns:///")) or re.fullmatch(r"\S+:\d{1,5}", text) is not None


def _duration(text: str) -> bool:
    try:
        return parse_duration(text) >= 0
    except ValueError:
        return False


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
        _key("cpus", "CPUs of a run, without --cpus", "2", _cpus),
        _key("memory", "memory of a run, without --memory", "2g", _size),
        _key("disk", "writable disk of a run, without --disk", "10g", _size),
        _key("platform", "platform of images", "linux/amd64", _platform),
        _key("foreign", "images of another architecture alone", "emulate", _foreign),
        _key("starter-image", "image of `lns init agent`, without --image", "r/i:1", _some),
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
        _key("context", "where the services are (`lns context`)", "cluster", is_context_name),
        _key("reconnect-time", "wait for configured services that were lost", "2m", _duration),
    )
}


def find_key(name: str) -> Key:
    """Returns the key of a name.

    Raises:
        SettingsInvalid: no such key exists; the hint lists all.
    """
    key = KEYS.get(name)
    if key is None:
        raise SettingsInvalid(
            f"the configuration key {name!r} does not exist", hint=f"the keys are {', '.join(KEYS)}"
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
