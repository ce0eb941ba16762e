"""Suggestions for a mistyped command."""

import difflib
from collections.abc import Iterable, Mapping

_OF_OTHERS: Mapping[str, str] = {
    "images": "lns image ls",
    "rmi": "lns image rm",
    "history": "lns image history",
    "save": "lns image save",
    "load": "lns image load",
    "export": "lns image export",
    "import": "lns image load",
    "search": "lns inspect REF",
    "top": "lns stats, or lns exec RUN ps",
    "container": "lns ps, run, stop and the other commands without `container`",
    "system": "lns doctor",
    "info": "lns doctor",
    "df": "lns image ls and lns volume ls",
    "unpause": "lns resume",
    "update": "lns restart",
    "diff": "lns exec RUN",
    "commit": "lns cp, and a build of your own",
    "build": "a builder of images, and lns push",
    "network": "lns port",
    "compose": "a bundle: lns init bundle",
    "up": "lns run",
    "down": "lns rm -f",
    "list": "lns ps",
    "ls": "lns ps",
    "delete": "lns rm",
    "remove": "lns rm",
    "help": "lns --help",
}
"""Commands that users know of Docker and its like, and what does the same here."""

_MOST = 3
_SHORT = 3  # of three letters one may be wrong, and of two


def suggestion(wrong: str, known: Iterable[str], *, path: str) -> str:
    """Returns what to write instead of a command, as the end of a sentence; empty if unknown.

    Args:
        wrong: the command that does not exist.
        known: commands that do.
        path: what stands before it: `lns`, `lns image`.
    """
    known = list(known)
    close = difflib.get_close_matches(
        wrong.lower(), known, n=_MOST, cutoff=0.6 if len(wrong) > _SHORT else 0.5
    )
    close += [name for name in known if name.startswith(wrong.lower()) and name not in close]
    if path == "lns" and wrong.lower() in _OF_OTHERS and wrong.lower() not in known:
        return f"did you mean {_OF_OTHERS[wrong.lower()]}?"
    if not close:
        return ""
    return f"did you mean {' or '.join(f'`{path} {name}`' for name in close[:_MOST])}?"
