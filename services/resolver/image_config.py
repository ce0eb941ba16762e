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
from services.core.run_plan import Healthcheck

MAX_ENTRIES: Final = 4096
MAX_TEXT: Final = 131_072
"""What Linux accepts as one argument or variable (MAX_ARG_STRLEN)."""

MAX_LABELS_TEXT: Final = 1 << 20
"""Characters of all labels together. Buildpacks write what is in an image into one label: more than
an argument holds, and nobody executes it."""

_MOST_RETRIES: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """What an image runs by default.

    Attributes:
        platform: what it is made for; of no known architecture where it does not say.
        entrypoint: program and arguments that stay when a command is given.
        command: arguments, or the program itself where there is no entry point.
        env: variables by name, the last of a name wins.
        user: `user[:group]`, or empty.
        workdir: absolute, or empty.
        labels: labels of the image.
        stop_signal: name or number of the signal that asks the workload to end, or empty.
        volumes: absolute directories that are meant to be volumes, sorted.
        exposed_ports: `port/protocol`, sorted.
        healthcheck: how it is checked; None if it is not.
        ignored: what the configuration says that is not followed, a sentence each.
    """

    platform: Platform
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: Mapping[str, str]
    user: str = ""
    workdir: str = ""
    labels: Mapping[str, str]
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    ignored: tuple[str, ...] = ()


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
    healthcheck, ignored = parse_healthcheck(
        _object(config, "Healthcheck"), shell=_program(config, "Shell")
    )
    labels, left_out = _labels(config)
    return ImageConfig(
        platform=platform,
        entrypoint=_program(config, "Entrypoint"),
        command=_program(config, "Cmd"),
        env=_env(config),
        user=_text(config, "User"),
        workdir=_absolute(workdir) if workdir else "",
        labels=labels,
        stop_signal=_text(config, "StopSignal"),
        volumes=tuple(sorted({_absolute(path) for path in _names(config, "Volumes") if path})),
        exposed_ports=tuple(sorted(_names(config, "ExposedPorts"))),
        healthcheck=healthcheck,
        ignored=(*ignored, *left_out),
    )


def _absolute(path: str) -> str:
    """Returns a directory as Docker takes it: a relative one is below the root."""
    return path if path.startswith("/") else f"/{path}"


def parse_healthcheck(
    document: Mapping[str, object], *, shell: tuple[str, ...]
) -> tuple[Healthcheck | None, tuple[str, ...]]:
    """Returns a health check as Docker's image configuration has it, and what of it is ignored.

    Times are nanoseconds; none, and 0, are Docker's defaults. The formats of `Test` are those of
    its HEALTHCHECK: `["NONE"]`, `["CMD", argument…]`, `["CMD-SHELL", command]`.
    """
    test = _texts(document, "Test")
    kind, rest = (test[0], test[1:]) if test else ("NONE", ())
    if kind == "CMD" and rest:
        argv = rest
    elif kind == "CMD-SHELL" and rest:
        argv = (*(shell or ("/bin/sh", "-c")), rest[0])
    elif kind in ("NONE", ""):
        return None, ()
    else:
        return None, (f"the image's health check begins with {kind[:40]!r}: it is not run",)
    default = Healthcheck(argv=argv)
    healthcheck = Healthcheck(
        argv=argv,
        interval=_number(document, "Interval") / 1e9 or default.interval,
        timeout=_number(document, "Timeout") / 1e9 or default.timeout,
        start_period=_number(document, "StartPeriod") / 1e9,
        start_interval=_number(document, "StartInterval") / 1e9 or default.start_interval,
        retries=min(_number(document, "Retries"), _MOST_RETRIES) or default.retries,
    )
    if not healthcheck.is_valid():
        return None, ("the image's health check has a time below 0 or beyond a day: it is not run",)
    return healthcheck, ()


def _env(config: Mapping[str, object]) -> dict[str, str]:
    pairs = (entry.partition("=") for entry in _texts(config, "Env"))
    return {name: value for name, equals, value in pairs if name and equals}


def _labels(config: Mapping[str, object]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Returns as many labels as the limits allow, and a sentence if some are left out."""
    labels: dict[str, str] = {}
    room = MAX_LABELS_TEXT
    written = _object(config, "Labels")
    for name in written:
        value = written[name]
        text = "" if value is None else _plain(value, "Labels")
        room -= len(_plain(name, "Labels")) + len(text)
        if room < 0 or len(labels) == MAX_ENTRIES:
            left = len(written) - len(labels)
            return labels, (f"the image's labels are too long: {left} of them are left out",)
        labels[name] = text
    return labels, ()


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


def _names(config: Mapping[str, object], name: str) -> list[str]:
    """Returns the names of a set, which the format writes as an object with empty values."""
    value = _object(config, name)
    if len(value) > MAX_ENTRIES:
        raise LimitExceeded(f"`{name}` of the image config has more than {MAX_ENTRIES} entries")
    return [_check(entry, name) for entry in value]


def _number(parent: Mapping[str, object], name: str) -> int:
    value = parent.get(name)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 63:
        raise RegistryProtocol(f"`{name}` of the image config is not a number")
    return value


def _text(parent: Mapping[str, object], name: str) -> str:
    value = parent.get(name)
    return "" if value is None else _check(value, name)


def _check(value: object, name: str) -> str:
    """Returns a text that a command line can hold."""
    text = _plain(value, name)
    if len(text) > MAX_TEXT:
        raise LimitExceeded(f"`{name}` of the image config holds more than {MAX_TEXT} characters")
    return text


def _plain(value: object, name: str) -> str:
    """Returns a text that a message can hold."""
    if not isinstance(value, str):
        raise RegistryProtocol(f"`{name}` of the image config holds something that is not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise RegistryProtocol(f"`{name}` of the image config is not Unicode") from error
    if "\0" in value:
        raise RegistryProtocol(f"`{name}` of the image config holds a NUL character")
    return value
