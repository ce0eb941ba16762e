"""What an image's configuration says of a run, from hostile JSON.

The format is that of the OCI image specification 1.1, `config.md`, which Docker's is a superset of.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.core.descriptor import Platform
from services.core.errors import LimitExceeded, LnsError, RegistryProtocol
from services.core.manifest import parse_json_object

MAX_ENTRIES: Final = 4096
MAX_TEXT: Final = 131_072
"""What Linux accepts as one argument or variable (MAX_ARG_STRLEN)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What an image runs unless something else is said.

    Attributes:
        platform: what it is made for.
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
    try:
        platform = Platform(
            os=_text(document, "os"),
            architecture=_text(document, "architecture"),
            variant=_text(document, "variant"),
        )
    except LnsError as error:
        raise RegistryProtocol(f"image config: {error.message}") from error
    return ImageConfig(
        platform=platform,
        entrypoint=_texts(config, "Entrypoint"),
        command=_texts(config, "Cmd"),
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
    return {_check(name, "Labels"): _check(value, "Labels") for name, value in labels.items()}


def _object(parent: Mapping[str, object], name: str) -> dict[str, object]:
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RegistryProtocol(f"`{name}` of the image config is not an object")
    return value


def _texts(config: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = config.get(name)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RegistryProtocol(f"`{name}` of the image config is not a list")
    if len(value) > MAX_ENTRIES:
        raise LimitExceeded(f"`{name}` of the image config has more than {MAX_ENTRIES} entries")
    return tuple(_check(entry, name) for entry in value)


def _text(parent: Mapping[str, object], name: str) -> str:
    value = parent.get(name)
    return "" if value is None else _check(value, name)


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
