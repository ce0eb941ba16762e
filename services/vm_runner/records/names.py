"""Names of runs and volumes. Pure."""

import re
import secrets
from collections.abc import Container

from services.core.errors import RequestInvalid

NAME_MAX = 63
_NAME = re.compile(rf"[a-zA-Z0-9][a-zA-Z0-9_.-]{{0,{NAME_MAX - 1}}}")


def check(name: str, *, of: str = "run") -> None:
    """Checks a name that a person chose for a run, or what else `of` says.

    Raises:
        RequestInvalid: it cannot be a name.
    """
    if not _NAME.fullmatch(name):
        raise RequestInvalid(
            f"{name!r} cannot be the name of a {of}",
            hint=f"begin with a letter or digit; use these, `_`, `.` and `-`, at most {NAME_MAX}",
        )


def choose(suggestion: str, *, taken: Container[str]) -> str:
    """Returns a free name by a suggestion: `hermes`, else `hermes-2`, `hermes-3` and so on."""
    base = re.sub(r"[^a-zA-Z0-9_.-]+", "-", suggestion).strip("-._")[:40] or "run"
    for number in range(1, 1000):
        name = base if number == 1 else f"{base}-{number}"
        if name not in taken:
            return name
    return f"{base}-{secrets.token_hex(4)}"
