"""Labels as they are written on the command line."""

from collections.abc import Sequence

from services.core.errors import RequestInvalid


def parse_labels(entries: Sequence[str]) -> dict[str, str]:
    """Returns labels given as `NAME=value` or `NAME`.

    Raises:
        RequestInvalid: an entry has no name.
    """
    labels = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        if not name:
            raise RequestInvalid(f"{entry!r} is not a label", hint="write NAME=value")
        labels[name] = value
    return labels
