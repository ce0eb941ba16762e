"""What an image's configuration says of a run, from hostile JSON.

The format is that of the OCI image specification 1.1, `config.md`, which Docker's is a superset of.
It is read as tolerantly as Docker reads it: null and absent are empty, and a program may be a text
where it should be a list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.core.errors import LimitExceeded, RegistryProtocol
from services.core.manifest import parse_json_object
from services.core.platforms import Platform

MAX_ENTRIES: Final = 4096
MAX_TEXT: Final = 131_072
"""What Linux accepts as one argument or variable (MAX_ARG_STRLEN)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What an image runs unless something else is said.

    Attributes:
        platform: what it is made for; of no known architecture where it does not say.
        entrypoint: program and arguments that stay when a command is given.
        command: arguments, or the program itself where there is no entry point.
        env: variables by name, the last of a name wins.
        user: `user[:group]`, or empty.
        workdir: absolute, or empty.
        labels: labels of the image.
    """

    platform: Platform
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str]
    user: str = ""
    workdir: str = ""
    labels: Mapping[str, str]


def parse_image_config(raw: bytes) -> ImageConfig:
    """Parses the config blob of an image.

    Raises:
        RegistryProtocol: it is not a configuration; the message names the member.
        LimitExceeded: a list or a text is longer than Linux accepts.
    """
    document = parse_json_object(raw, what="image config")
    config = _object(document, "config")
    workdir = _text(config, "WorkingDir")
    platform = Platform.of(
        _text(document, "os"), _text(document, "architecture"), _text(document, "variant")
    )
    return ImageConfig(
        platform=platform,
        entrypoint=_program(config, "Entrypoint"),
        command=_program(config, "Cmd"),
        env=_env(config),
        user=_text(config, "User"),
        # Docker takes a relative directory as below the root.
        workdir=workdir if workdir.startswith("/") or not workdir else f"/{workdir}",
        labels=_labels(config),
    )


def _env(config: Mapping[str, object]) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in _texts(config, "Env"))
    return {name: value for name, equals, value in pairs if name and equals}


def _labels(config: Mapping[str, object]) -> dict[str, str]:
    labels = _object(config, "Labels")
    if len(labels) > MAX_ENTRIES:
        raise LimitExceeded(f"image config has more than {MAX_ENTRIES} labels")
    return {_check(name, "Labels"): _text(labels, name, "Labels") for name in labels}


def _object(parent: Mapping[str, object], name: str) -> dict[str, object]:
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RegistryProtocol(f"`{name}` of the image config is not an object")
    return value


def _program(config: Mapping[str, object], name: str) -> tuple[str, ...]:
    """Returns a program with its arguments; one empty text is how some builders write none."""
    value = config.get(name)
    texts = (_check(value, name),) if isinstance(value, str) else _texts(config, name)
    return () if texts == ("",) else texts


def _texts(config: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = config.get(name)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RegistryProtocol(f"`{name}` of the image config is not a list")
    if len(value) > MAX_ENTRIES:
        raise LimitExceeded(f"`{name}` of the image config has more than {MAX_ENTRIES} entries")
    return tuple("" if entry is None else _check(entry, name) for entry in value)


def _text(parent: Mapping[str, object], name: str, member: str = "") -> str:
    value = parent.get(name)
    return "" if value is None else _check(value, member or name)


def _check(value: object, name: str) -> str:
    """Returns a text that a command line and a message can hold."""
    if not isinstance(value, str):
        raise RegistryProtocol(f"`{name}` of the image config holds something that is not text")
    if len(value) > MAX_TEXT:
        raise LimitExceeded(f"`{name}` of the image config holds more than {MAX_TEXT} characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RegistryProtocol(f"`{name}` of the image config is not Unicode") from error
    if "\0" in value:
        raise RegistryProtocol(f"`{name}` of the image config holds a NUL character")
    return value
