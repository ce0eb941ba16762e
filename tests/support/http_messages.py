"""Requests and answers of the HTTP peers of tests, known by the distribution API's paths."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit

BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
"""Statuses whose answers have no body."""


class Kind(StrEnum):
    """What a request to a registry is about, by its path."""

    BASE = "base"
    MANIFEST = "manifest"
    BLOB = "blob"
    UPLOAD = "upload"
    TAGS = "tags"
    REFERRERS = "referrers"
    TYPES = "types"
    """`/ext/v1/types`."""
    OTHER = "other"


_PATHS = {
    Kind.UPLOAD: re.compile(r"/v2/(?P<repository>.+)/blobs/uploads/(?P<reference>[^/]*)"),
    Kind.BLOB: re.compile(r"/v2/(?P<repository>.+)/blobs/(?P<reference>[^/]+)"),
    Kind.MANIFEST: re.compile(r"/v2/(?P<repository>.+)/manifests/(?P<reference>[^/]+)"),
    Kind.TAGS: re.compile(r"/v2/(?P<repository>.+)/tags/list"),
    Kind.REFERRERS: re.compile(r"/v2/(?P<repository>.+)/referrers/(?P<reference>[^/]+)"),
    Kind.BASE: re.compile(r"/v2/?"),
    Kind.TYPES: re.compile(r"/ext/v1/types"),
}


@dataclass(slots=True, kw_only=True)
class Request:
    """A request as it came; the last three fields grow while it is served."""

    peer: str
    """`host:port` it came to."""
    method: str
    target: str
    """Path and query as they were sent."""
    headers: Mapping[str, str]
    """Values by lower-case name; those of a repeated header are one list, as RFC 9110 has it."""
    kind: Kind = Kind.OTHER
    repository: str = ""
    reference: str = ""
    """Tag or digest of a manifest, digest of a blob, id of an upload session."""
    received_bytes: int = 0
    """Bytes of its body that were read."""
    status: int | None = None
    """Status it was answered with; None while it was not, or never."""
    sent_bytes: int = 0
    """Bytes of the answer's body that were sent."""

    def __post_init__(self) -> None:
        for kind, pattern in _PATHS.items():
            if match := pattern.fullmatch(self.path):
                self.kind = kind
                self.repository = match.groupdict().get("repository", "")
                self.reference = match.groupdict().get("reference", "")
                return

    @property
    def path(self) -> str:
        """The path without the query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> Mapping[str, str]:
        """The first value of each parameter."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def digest(self) -> str:
        """The digest it is about: of a manifest or blob, committed or mounted by an upload."""
        if self.reference.startswith("sha256:"):
            return self.reference
        return self.query.get("digest") or self.query.get("mount", "")


@dataclass(slots=True, kw_only=True)
class Response:
    """An answer before it is sent."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: Iterable[bytes] = ()

    def header(self, name: str) -> str | None:
        """Returns the first value of a header."""
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)

    def set_header(self, name: str, value: str | None) -> None:
        """Replaces every value of a header; None removes it."""
        self.headers = [(n, v) for n, v in self.headers if n.lower() != name.lower()]
        if value is not None:
            self.headers.append((name, value))


def answer(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Response:
    """Returns an answer that is known whole."""
    response = Response(status=status, headers=list((headers or {}).items()), body=(body,))
    if response.header("Content-Length") is None and status not in BODILESS:
        response.set_header("Content-Length", str(len(body)))
    return response
