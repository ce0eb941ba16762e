"""References to manifests in registries: `host[:port]/path[:tag][@digest]`.

The grammar is that of the distribution project (github.com/distribution/reference) with Docker's
rule for hosts: the first segment is a host if it has a `.` or a `:` or is `localhost`; anything
else is a path in the default registry.
"""

import ipaddress
import re
from dataclasses import dataclass, replace
from typing import Self

from services.core.digest import Digest
from services.core.errors import DigestInvalid, ReferenceInvalid

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
STORE_HOST = "store.lns.internal"
"""The host of references that name what only this node's store has; no registry is asked."""

MAX_REFERENCE_CHARACTERS = 1024
_MAX_REPOSITORY_CHARACTERS = 255
_MAX_HOST_CHARACTERS = 255

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9a-fA-F:.]+\])(?::[0-9]{{1,5}})?\Z")
_SEGMENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*\Z")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A parsed, valid reference.

    Attributes:
        host: registry host with its port where it has one, `localhost:5000`.
        path: repository path without the host, `library/debian`.
        tag: tag, or None.
        digest: digest, or None. With a digest the tag is only shown.
    """

    host: str
    path: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str, *, default_registry: str = DEFAULT_REGISTRY) -> Self:
        """Parses a reference as a person writes it.

        A reference without tag and digest gets the tag `latest`. A one-segment path at `docker.io`
        gets the prefix `library/`.

        Raises:
            ReferenceInvalid: the text does not follow the grammar; the message says at which part.
        """
        if not text or len(text) > MAX_REFERENCE_CHARACTERS:
            raise _invalid(text, "it is empty" if not text else "it is longer than 1024 characters")
        scheme, separator, rest = text.partition("://")
        if separator:
            raise _with_scheme(text, scheme, rest)
        name, _, digest_text = text.partition("@")
        try:
            digest = Digest(digest_text) if "@" in text else None
        except DigestInvalid as error:
            raise _invalid(text, f"its digest {digest_text[:80]!r} is not one") from error
        host, rest = _split_host(name, default_registry)
        path, tag = _split_tag(rest)
        if tag is not None and not _TAG.match(tag):
            raise _invalid(text, f"its tag {tag[:140]!r} is not one")
        if not _is_host(host):
            raise _invalid(text, f"its host {host[:100]!r} is not one")
        if host in ("docker.io", "index.docker.io"):
            host = DEFAULT_REGISTRY
            path = path if "/" in path else f"library/{path}"
        _check_path(text, path)
        if tag is None and digest is None:
            tag = DEFAULT_TAG
        return cls(host=host, path=path, tag=tag, digest=digest)

    @property
    def repository(self) -> str:
        """`host/path`."""
        return f"{self.host}/{self.path}"

    @property
    def name(self) -> str:
        """The last segment of the path."""
        return self.path.rpartition("/")[2]

    @property
    def selector(self) -> str:
        """What a registry is asked for: the digest where there is one, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine: `localhost`, 127.0.0.0/8 or ::1."""
        return is_loopback_host(self.host)

    def pinned(self, digest: Digest) -> "Reference":
        """Returns the reference to one digest of the same repository, without a tag."""
        return replace(self, tag=None, digest=digest)

    def tagged(self, tag: str) -> "Reference":
        """Returns the reference to a tag of the same repository.

        Raises:
            ReferenceInvalid: the tag does not follow the grammar.
        """
        if not _TAG.match(tag):
            raise _invalid(f"{self.repository}:{tag}", f"its tag {tag[:140]!r} is not one")
        return replace(self, tag=tag, digest=None)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.host}/{self.path}{tag}{digest}"


def has_host(text: str) -> bool:
    """Says whether a reference names its registry, by Docker's rule for the first segment."""
    first, slash, _ = text.partition("/")
    return bool(slash) and (first == "localhost" or "." in first or ":" in first)


def is_loopback_host(host: str) -> bool:
    """Says whether a registry host, with or without port, is this machine."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.rstrip(".").lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _split_host(name: str, default_registry: str) -> tuple[str, str]:
    if has_host(name):
        host, _, rest = name.partition("/")
        return host, rest
    return default_registry, name


def _split_tag(rest: str) -> tuple[str, str | None]:
    head, colon, tail = rest.rpartition(":")
    return (head, tail) if colon and "/" not in tail else (rest, None)


def _is_host(host: str) -> bool:
    if len(host) > _MAX_HOST_CHARACTERS or not _HOST.match(host):
        return False
    if host.startswith("["):
        try:
            ipaddress.IPv6Address(host[1:].partition("]")[0])
        except ValueError:
            return False
    port = host.rpartition(":")[2] if not host.endswith("]") and ":" in host else ""
    return not port or 0 < int(port) <= _MAX_PORT


def _check_path(text: str, path: str) -> None:
    if not path:
        raise _invalid(text, "it has no repository")
    if len(path) > _MAX_REPOSITORY_CHARACTERS:
        raise _invalid(text, "its repository is longer than 255 characters")
    for segment in path.split("/"):
        if not _SEGMENT.match(segment):
            way_out = "; repository names are lower-case" if segment != segment.lower() else ""
            raise _invalid(text, f"its path segment {segment[:80]!r} is not one{way_out}")


def _with_scheme(text: str, scheme: str, rest: str) -> ReferenceInvalid:
    shown = text if len(text) <= 200 else text[:200] + "…"  # noqa: PLR2004 - only shown
    return ReferenceInvalid(
        f"{shown!r} begins with {scheme[:40]}://, and a reference has no scheme",
        hint=f"leave it out: {rest[:200]}",
        metadata={"reference": shown},
    )


def _invalid(text: str, why: str) -> ReferenceInvalid:
    shown = text if len(text) <= 200 else text[:200] + "…"  # noqa: PLR2004 - only shown
    return ReferenceInvalid(
        f"{shown!r} is not a reference: {why}",
        hint="write host[:port]/path[:tag][@sha256:…]",
        metadata={"reference": shown},
    )
