"""Text for users: sizes, times, ids, and and YAML."""

import re
from typing import Any

from services.core.text import printable as printable  # noqa: PLC0414 - for who renders

SHORT_ID_CHARACTERS = 12
_SIZE_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_DIGEST = re.compile(r"(sha(?:256|512):[0-9a-f]{12})[0-9a-f]{52}(?:[0-9a-f]{64})?")
_AGES = (
    (60, 1, "second"),
    (3600, 60, "minute"),
    (48 * 3600, 3600, "hour"),
    (14 * 86400, 86400, "day"),
    (60 * 86400, 7 * 86400, "week"),
    (730 * 86400, 30 * 86400, "month"),
)


def to_yaml_blocks(value: Any) -> str:
    """Returns a value as YAML for files that users keep: texts of several lines as blocks.

    What could steer a terminal makes a text a quoted one, with escapes.
    """
    import yaml  # noqa: PLC0415 - only for this form

    class Blocks(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
        is_block = "\n" in data and printable(data, keep="\n") == data
        style = "|" if is_block else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)

    Blocks.add_representer(str, text)
    written: str = yaml.dump(value, Dumper=Blocks, sort_keys=False, allow_unicode=False)
    return written


def to_yaml(value: Any) -> str:
    """Returns a value as YAML in which no character could steer a terminal."""
    import yaml  # noqa: PLC0415 - only for this form

    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    if printable(text, keep="\n") != text:
        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=False)
    return text


def format_size(count: int) -> str:
    """Returns `count` bytes in decimal units with three digits: `1.24MB`, as Docker does."""
    value = float(count)
    for unit in _SIZE_UNITS[:-1]:
        if value < 999.5:  # noqa: PLR2004 - what rounds to 1000 belongs to the next unit
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}{_SIZE_UNITS[-1]}"


def format_seconds(seconds: float) -> str:
    """Returns a span for the phase line: `0.4 s`, `75 s`, `3 min 20 s`."""
    if seconds < 10:  # noqa: PLR2004 - tenths are read only in small numbers
        return f"{seconds:.1f} s"
    if seconds < 120:  # noqa: PLR2004 - seconds are read well up to two minutes
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def format_age(seconds: float) -> str:
    """Returns how long ago something was, in one unit: `3 minutes`, `About` is left out."""
    seconds = max(0.0, seconds)
    for limit, unit, name in _AGES:
        if seconds < limit:
            count = int(seconds // unit)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{int(seconds // (365 * 86400))} years"


def short_id(identifier: str) -> str:
    """Returns the first twelve digits of an id or digest, without the algorithm's name."""
    return identifier.rpartition(":")[2][:SHORT_ID_CHARACTERS]


def short_digests(text: str) -> str:
    """Returns `text` with every digest cut to twelve digits: `repository@sha256:4f1c…`."""
    return _DIGEST.sub(r"\1…", text)


def shorten(text: str, width: int) -> str:
    """Returns `text`, cut to `width` characters with an ellipsis where it is longer."""
    return text if len(text) <= width else text[: width - 1] + "…"
