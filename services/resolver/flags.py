"""Flags of `lns run` in their own notation: `-p`, `-v`, `--mount`; and paths in the guest."""

import ipaddress
import posixpath
import re
from dataclasses import dataclass
from typing import Final

from services.core.errors import RequestInvalid
from services.core.guest_paths import mount_problem
from services.core.run_plan import PortMapping, VolumeKind, VolumeMount

_MAX_PORT: Final = 65535
_MAX_PATH: Final = 4096
_PORT = re.compile(
    r"(?:(?:\[(?P<six>[0-9a-fA-F:.]{2,45})\]|(?P<four>[0-9]+(?:\.[0-9]+){3})):)?"
    r"(?:(?P<host>[0-9]{0,5}):)?(?P<container>[0-9]{1,5})(?:/(?P<protocol>[a-z]{1,8}))?",
    re.ASCII,
)
_VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class MountFlag:
    """`--mount REF[:/path]`; `path` is empty where none is given."""

    reference: str
    path: str


def parse_port_flag(text: str) -> PortMapping:
    """Parses `[[ip:]host:]container[/tcp]`; without a host port, or with 0, a free one is picked.

    An IPv6 address stands in brackets.

    Raises:
        RequestInvalid: it is something else, or another protocol.
    """
    match = _PORT.fullmatch(text)
    if match is None:
        raise _invalid(text, "a port", "write HOST:CONTAINER, or 127.0.0.1:8080:80")
    if match["protocol"] not in (None, "tcp"):
        raise _invalid(text, "a port that can be published", "only tcp can be")
    host_port, container_port = int(match["host"] or 0), int(match["container"])
    if host_port > _MAX_PORT or not 0 < container_port <= _MAX_PORT:
        raise _invalid(text, "a port", "ports are numbers from 1 to 65535")
    address = match["six"] or match["four"]
    if address is not None:
        try:
            address = str(ipaddress.ip_address(address))
        except ValueError as error:
            raise _invalid(text, "a port", f"{address} is no address") from error
    return PortMapping(
        host_ip=address or "127.0.0.1", host_port=host_port, container_port=container_port
    )


def parse_volume_flag(text: str) -> VolumeMount:
    """Parses `name:/path[:ro|rw]` or `/host/path:/path[:ro|rw][,secrets]`.

    Raises:
        RequestInvalid: it is something else.
    """
    source, _, rest = text.partition(":")
    target, _, listed = rest.partition(":")
    modes = listed.split(",") if listed else []
    is_known = set(modes) <= {"ro", "rw", "secrets"} and not {"ro", "rw"} <= set(modes)
    if not is_known or len(set(modes)) < len(modes) or not target or text.endswith(":"):
        raise _invalid(text, "a volume", "write NAME:/path or /host/path:/path, :ro for read-only")
    kind = VolumeKind.NAMED
    if source.startswith("/"):
        kind, source = VolumeKind.BIND, guest_path(source, what=f"{text!r}: the host's path")
    elif not _VOLUME_NAME.fullmatch(source):
        raise _invalid(text, "a volume", "a name has letters, digits, `_`, `.` and `-`")
    elif "secrets" in modes:
        raise _invalid(text, "a volume", "`secrets` is of host paths: named volumes hide nothing")
    return VolumeMount(
        kind=kind,
        source=source,
        target=mount_path(target, what=f"{text!r}: the path in the guest"),
        read_only="ro" in modes,
        keep_secrets="secrets" in modes,
    )


def parse_mount_flag(text: str) -> MountFlag:
    """Parses `REF[:/path]`.

    Raises:
        RequestInvalid: there is no reference, or the path is not plain.
    """
    # A reference never has `:/` in it: behind its colons are a port or a tag.
    reference, colon, path = text.partition(":/")
    if not reference:
        raise _invalid(text, "a mount", "write REF or REF:/path")
    if not colon:
        return MountFlag(reference=reference, path="")
    return MountFlag(reference=reference, path=mount_path(f"/{path}", what=f"{text!r}: the path"))


def mount_path(path: str, *, what: str) -> str:
    """Returns a path of the guest, as `guest_path` does, where something can be mounted.

    Raises:
        RequestInvalid: it is no plain path, or one that the guest's kernel fills.
    """
    if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        return guest_path(path, what=what)  # which says what is wrong
    if problem := mount_problem(path):
        raise RequestInvalid(f"{what} {path[:200]!r} {problem}")
    return guest_path(path, what=what)


def guest_path(path: str, *, what: str) -> str:
    """Returns an absolute path without repeated or trailing slashes and without `.`.

    Raises:
        RequestInvalid: it is relative, holds `..` or NUL, is the root or too long.
    """
    if not path.startswith("/"):
        raise RequestInvalid(f"{what} {path[:200]!r} is not absolute", hint="begin it with /")
    if ".." in path.split("/") or "\0" in path:
        raise RequestInvalid(f"{what} {path[:200]!r} holds `..` or NUL")
    normal = "/" + posixpath.normpath(path).lstrip("/")
    if normal == "/" or len(normal.encode()) > _MAX_PATH:
        raise RequestInvalid(f"{what} {path[:200]!r} is the root, or longer than 4096 bytes")
    return normal


def _invalid(text: str, what: str, way_out: str) -> RequestInvalid:
    return RequestInvalid(f"{text[:200]!r} is not {what}: {way_out}", hint=way_out)
