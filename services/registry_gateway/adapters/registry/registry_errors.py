"""What a registry's failing answer means: its own error code first, the HTTP status second.

Codes are those of the distribution specification, with the extension of registries that validate
artifacts: `MANIFEST_INVALID` whose detail lists violations.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from services.core.errors import (
    ArtifactInvalid,
    BlobsMissing,
    BlobUnknown,
    ContentCorrupt,
    LimitExceeded,
    LnsError,
    ManifestUnknown,
    RegistryDenied,
    RegistryProtocol,
    RegistryUnauthenticated,
    RegistryUnavailable,
    TooManyRequests,
    Violation,
)
from services.registry_gateway.adapters.transport.http_reply import Reply

_MAX_VIOLATIONS: Final = 200
_MAX_TEXT: Final = 300
_MAX_BODY_BYTES: Final = 1 << 20

_BY_CODE: Final[Mapping[str, type[LnsError]]] = {
    "MANIFEST_UNKNOWN": ManifestUnknown,
    "NAME_UNKNOWN": ManifestUnknown,
    "BLOB_UNKNOWN": BlobUnknown,
    "MANIFEST_BLOB_UNKNOWN": BlobsMissing,
    "DIGEST_INVALID": ContentCorrupt,
    "UNAUTHORIZED": RegistryUnauthenticated,
    "DENIED": RegistryDenied,
    "TOOMANYREQUESTS": TooManyRequests,
}
_BY_STATUS: Final[Mapping[int, type[LnsError]]] = {
    401: RegistryUnauthenticated,
    403: RegistryDenied,
    413: LimitExceeded,
    429: TooManyRequests,
}


def error_of(reply: Reply, *, what: str, not_found: type[LnsError]) -> LnsError:
    """Returns the error that a failing answer stands for.

    Args:
        reply: the answer; its body is read, where it has at most 1 MiB.
        what: what was asked for, for the message: a reference.
        not_found: what a 404 without a code means.
    """
    host = reply.asked
    entries = _entries(reply)
    first = entries[0] if entries else {}
    code = str(first.get("code", ""))[:64]
    text = _clean(first.get("message"), reply) or f"status {reply.status_code}"
    metadata = {"reference": what, "registry": host, "status": str(reply.status_code)}
    if code:
        metadata["code"] = code
    violations = [v for entry in entries for v in _violations(entry.get("detail"), reply)]
    if code == "MANIFEST_INVALID" and violations:
        return ArtifactInvalid(
            f"{host} refuses {what}: {text}",
            hint="mend the document; the registry's own schemas are listed by `lns types`",
            violations=violations[:_MAX_VIOLATIONS],
            metadata=metadata,
        )
    if reply.elsewhere:
        return _refused_elsewhere(reply, what, text, not_found, metadata)
    kind = _BY_CODE.get(code) or _BY_STATUS.get(reply.status_code)
    if kind is None:
        kind = _by_class(reply.status_code, not_found)
    return kind(f"{host}: {_phrase(kind, what, text)}", hint=_hint(kind, host), metadata=metadata)


def _refused_elsewhere(
    reply: Reply, what: str, text: str, not_found: type[LnsError], metadata: Mapping[str, str]
) -> LnsError:
    """Returns the error of a host that a registry sent us on to; a login there is nobody's wish."""
    kind = _BY_STATUS.get(reply.status_code) or _by_class(reply.status_code, not_found)
    if kind is RegistryUnauthenticated:
        kind = RegistryDenied
    return kind(
        f"{reply.asked} sent the request for {what} on to {reply.elsewhere},"
        f" which answered: {text}",
        hint="try again: such links expire; if it fails again, the registry's operator must know",
        metadata=metadata,
    )


def _by_class(status: int, not_found: type[LnsError]) -> type[LnsError]:
    if status == 404:  # noqa: PLR2004 - HTTP's Not Found
        return not_found
    return RegistryUnavailable if status >= 500 else RegistryProtocol  # noqa: PLR2004 - server errors


def _phrase(kind: type[LnsError], what: str, text: str) -> str:
    phrases: Mapping[type[LnsError], Callable[[], str]] = {
        ManifestUnknown: lambda: f"{what} does not exist",
        BlobUnknown: lambda: f"a blob of {what} does not exist ({text})",
        BlobsMissing: lambda: f"blobs that {what} names do not exist ({text})",
        RegistryUnauthenticated: lambda: f"{what} needs a login ({text})",
        RegistryDenied: lambda: f"access to {what} is denied ({text})",
    }
    return phrases.get(kind, lambda: f"the request for {what} failed: {text}")()


def _hint(kind: type[LnsError], host: str) -> str:
    hints: Mapping[type[LnsError], str] = {
        ManifestUnknown: "check the name and the tag, or log in if the repository is private",
        RegistryUnauthenticated: f"lns login {host}",
        RegistryDenied: f"use an account that may do this: lns login {host}",
    }
    return hints.get(kind, "")


def _entries(reply: Reply) -> list[dict[str, Any]]:
    try:
        document = reply.document(_MAX_BODY_BYTES)
    except LnsError:  # an error page: the status says what there is to say
        return []
    errors = document.get("errors")
    return [one for one in errors if isinstance(one, dict)] if isinstance(errors, list) else []


def _violations(detail: object, reply: Reply) -> Iterable[Violation]:
    """Yields the violations of a detail: a list, or an object with `violations`."""
    if isinstance(detail, dict):
        detail = detail.get("violations") or detail.get("errors") or [detail]
    if not isinstance(detail, list):
        return
    for one in detail[:_MAX_VIOLATIONS]:
        if not isinstance(one, dict):
            continue
        text = one.get("message") or one.get("description") or one.get("error")
        description = _clean(text, reply)
        if description:
            subject = one.get("path") or one.get("field") or one.get("instancePath") or "$"
            yield Violation(subject=_clean(subject, reply), description=description, type="SCHEMA")


def _clean(value: object, reply: Reply) -> str:
    """Returns a server's text as one harmless line, without what it was sent."""
    text = reply.masked(value) if isinstance(value, str) else ""
    return "".join(c if c.isprintable() else " " for c in text[:_MAX_TEXT]).strip()
