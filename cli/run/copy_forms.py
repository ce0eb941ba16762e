"""Where a copy lands, by the rules of `docker cp`. Pure.

A source that is a directory and ends in `/.` is copied by what it holds, another one as itself. A
target that is a directory, also by a link, is copied into; one that does not exist becomes the
copy; a file gives way to a file only. A link that is named as the target is written through. A
source that is a link is copied as a link, unless a `/` behind it asks for the directory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.core.errors import RequestInvalid


class Kind(StrEnum):
    """What is at a path once links are followed."""

    NOTHING = "nothing"
    FILE = "file"
    DIRECTORY = "directory"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A path as it was written, and what exists at it.

    Attributes:
        text: the path as it was written.
        kind: what exists there, links followed.
        is_link: whether the path itself is a link.
        resolved: absolute path that the links lead to; empty where its directory does not exist.
    """

    text: str
    kind: Kind
    is_link: bool = False
    resolved: str

    @property
    def wants_directory(self) -> bool:
        """Whether what is written can only mean a directory."""
        return self.text.endswith("/") or self.wants_contents

    @property
    def wants_contents(self) -> bool:
        """Whether a directory is meant by what it holds."""
        return self.text == "." or self.text.endswith("/.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Landing:
    """What is copied where.

    Attributes:
        source: path to read: a link itself, or what the links lead to.
        name: last name of `source`; what it is called in an archive.
        target: path that the root of what is copied becomes, or merges into.
    """

    source: str
    name: str
    target: str


def landing(source: Place, target: Place) -> Landing:
    """Returns what a copy of `source` to `target` is.

    Raises:
        RequestInvalid: there is nothing to copy, or it cannot be put there.
    """
    follows = source.wants_directory or not source.is_link
    if source.kind is Kind.NOTHING and (follows or not source.is_link):
        raise RequestInvalid(f"{source.text} does not exist", hint="check the path")
    if source.wants_directory and source.kind is not Kind.DIRECTORY:
        raise RequestInvalid(f"{source.text} is not a directory", hint="write it without the /")
    path = source.resolved if follows else source.text.rstrip("/")
    is_directory = follows and source.kind is Kind.DIRECTORY
    name = path.rstrip("/").rpartition("/")[2]
    called = _last_name(source.text) or name
    end = _target(source, target, is_directory=is_directory, called=called)
    return Landing(source=path, name=name, target=end)


def _target(source: Place, target: Place, *, is_directory: bool, called: str) -> str:
    if target.kind is Kind.DIRECTORY:
        if source.wants_contents:
            return target.resolved
        return _below(target.resolved, called)
    if not target.resolved:
        raise RequestInvalid(
            f"the directory of {target.text} does not exist",
            hint="make it first, or check the path",
        )
    if target.kind is Kind.NOTHING:
        if target.wants_directory and not is_directory:
            raise RequestInvalid(f"{target.text} does not exist", hint="make the directory first")
        return target.resolved
    if is_directory or target.wants_directory:
        raise RequestInvalid(
            f"{target.text} exists and is not a directory", hint="choose another target"
        )
    return target.resolved


def _last_name(text: str) -> str:
    """Returns the last name of a path as it was written; none of `/`, `.` and `..`."""
    name = text.removesuffix("/.").rstrip("/").rpartition("/")[2]
    return "" if name in (".", "..") else name


def _below(directory: str, name: str) -> str:
    return f"{directory.rstrip('/')}/{name}"


def clash(path: Sequence[str] | str, *, is_directory: bool) -> RequestInvalid:
    """Returns the error that a directory and something else want one place."""
    shown = path if isinstance(path, str) else "/".join(path)
    there, comes = "is a directory", "a file"
    if is_directory:
        there, comes = "is not a directory", "a directory"
    return RequestInvalid(
        f"{shown} {there}, and {comes} would replace it",
        hint="remove it first: a directory does not replace a file, nor a file a directory",
    )
