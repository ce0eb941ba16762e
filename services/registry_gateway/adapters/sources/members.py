"""The members of an archive by the names that builders give them, and the links between them.

`./x`, `/x` and `x` are one name, in the archive and in its `manifest.json` alike: kaniko, pack and
podman write one and name the other. A link may lead to another link; one that leads out of the
archive, in a circle or nowhere names nothing.
"""

import posixpath
from typing import Final

from services.registry_gateway.ports import BlobSource

_MAX_HOPS: Final = 40
"""Links that are followed for one name, as Linux has it (`MAXSYMLINKS`)."""


def plain_name(name: str) -> str:
    """Returns a member's name relative to the archive's root; empty for one that is outside."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                return ""
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


class Members:
    """What an archive has; filled in the order of the archive, where the last of a name counts."""

    def __init__(self) -> None:
        self._files: dict[str, BlobSource] = {}
        self._links: dict[str, str] = {}

    def add_file(self, name: str, source: BlobSource) -> None:
        """Adds a regular file."""
        self._links.pop(plain_name(name), None)
        self._files[plain_name(name)] = source

    def add_link(self, name: str, target: str, *, symbolic: bool) -> None:
        """Adds a link; a symbolic one is relative to its directory, a hard one to the root."""
        here = plain_name(name)
        if symbolic and not target.startswith("/"):
            target = posixpath.join(posixpath.dirname(here), target)
        self._files.pop(here, None)
        self._links[here] = plain_name(target)

    def names(self) -> list[str]:
        """Returns the plain names of the files, links left out."""
        return list(self._files)

    def get(self, name: str) -> BlobSource | None:
        """Returns the file that a name leads to, or None."""
        here = plain_name(name)
        for _ in range(_MAX_HOPS):
            if here in self._files:
                return self._files[here]
            here = self._followed(here)
            if not here:
                return None
        return None

    def _followed(self, name: str) -> str:
        """Returns where a name leads by its own link, or by that of a directory above it."""
        if name in self._links:
            return self._links[name]
        above, rest = posixpath.split(name)
        while above:
            if above in self._links:
                return plain_name(posixpath.join(self._links[above], rest))
            above, last = posixpath.split(above)
            rest = posixpath.join(last, rest)
        return ""
