"""Lock files: the pinned closure of a reference as text that stays the same for the same closure.

    # Written by `lns lock`; `lns run --locked FILE` runs exactly this.
    version: 1
    reference: localhost:5000/bundles/hello:1
    platform: linux/amd64
    manifests:
      - role: bundle
        requested: localhost:5000/bundles/hello:1
        repository: localhost:5000/bundles/hello
        digest: sha256:…
        mediaType: application/vnd.oci.image.manifest.v1+json
        size: 615

The first manifest is the root; the others are sorted by role, reference and repository.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.core.artifacts.documents import parse_document
from services.core.artifacts.schemas import lock_file_validator
from services.core.artifacts.violations import RULE, to_violations
from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import (
    ArtifactInvalid,
    BlobUnknown,
    LnsError,
    ManifestUnknown,
    RequestInvalid,
    Violation,
)
from services.core.platforms import Platform
from services.core.reference import Reference, has_host
from services.core.run_plan import PinnedManifest, RunPlan
from services.core.text import printable
from services.resolver.gathering import INDEX_ROLE
from services.resolver.ports import FetchedManifest, ManifestSource

LOCK_VERSION: Final = 1
MAX_LOCK_BYTES: Final = 1024 * 1024
_HEADER: Final = "# Written by `lns lock`; `lns run --locked FILE` runs exactly this.\n"
_IMAGE_ROLES: Final = frozenset({INDEX_ROLE, "image"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A pinned closure.

    Attributes:
        reference: what was locked.
        platform: platform of its images.
        manifests: every manifest, root first.
    """

    reference: str
    platform: Platform
    manifests: tuple[PinnedManifest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LockDifference:
    """One difference of two closures; a digest is empty on the side that lacks the component."""

    component: str
    locked_digest: str
    current_digest: str


def lock_plans(reference: str, platform: Platform, plans: Iterable[RunPlan]) -> Lock:
    """Returns the lock of the plans that a reference resolved to."""
    closure = {_name(entry): entry for plan in plans for entry in plan.closure}
    root, *others = closure.values()
    return Lock(
        reference=reference, platform=platform, manifests=(root, *sorted(others, key=_name))
    )


def format_lock(lock: Lock) -> bytes:
    """Returns the text of a lock file, the same for the same lock."""
    lines = [
        f"version: {LOCK_VERSION}",
        f"reference: {_scalar(lock.reference)}",
        f"platform: {_scalar(str(lock.platform))}",
        "manifests:",
    ]
    for entry in lock.manifests:
        lines += [
            f"  - role: {_scalar(entry.role)}",
            f"    requested: {_scalar(entry.requested)}",
            f"    repository: {_scalar(entry.repository)}",
            f"    digest: {entry.manifest.digest}",
            f"    mediaType: {_scalar(entry.manifest.media_type)}",
            f"    size: {entry.manifest.size}",
        ]
    return (_HEADER + "\n".join(lines) + "\n").encode()


def parse_lock(data: bytes) -> Lock:
    """Parses a lock file from hostile bytes.

    Raises:
        RequestInvalid: it is not a lock; `violations` has every problem by its path.
    """
    try:
        document = parse_document(data)
    except ArtifactInvalid as error:
        raise _invalid(error.violations) from error
    found = to_violations(lock_file_validator().errors(document))
    if found:
        raise _invalid(found)
    try:
        return Lock(
            reference=document["reference"],
            platform=Platform.parse(document["platform"]),
            manifests=tuple(map(_parse_entry, document["manifests"])),
        )
    except LnsError as error:
        raise _invalid([Violation(subject="$", description=error.message, type=RULE)]) from error


def compare(locked: Lock, current: Lock) -> tuple[LockDifference, ...]:
    """Returns what differs between two locks of one reference, by component."""
    before = {_name(entry): entry.manifest.digest for entry in locked.manifests}
    now = {_name(entry): entry.manifest.digest for entry in current.manifests}
    return tuple(
        LockDifference(
            component=f"{role} {requested}",
            locked_digest=before.get((role, requested, repository), ""),
            current_digest=now.get((role, requested, repository), ""),
        )
        for role, requested, repository in sorted(before.keys() | now.keys())
        if before.get((role, requested, repository)) != now.get((role, requested, repository))
    )


def check_exact(locked: Lock, resolved: Lock) -> None:
    """Holds a lock against what its reference resolves to by it.

    Raises:
        RequestInvalid: they differ in anything; each entry that does is named.
    """
    given = [_whole(entry) for entry in locked.manifests]
    right = [_whole(entry) for entry in resolved.manifests]
    if given == right:
        return
    differing = set(given) ^ set(right)
    wrong = sorted({f"{role} {requested}" for role, requested, *_ in differing})
    named = ", ".join(wrong[:5]) or "the order of its entries"
    raise RequestInvalid(
        f"the lock is not what its reference resolves to by it: {named}"
        f"{' and more' if len(wrong) > 5 else ''}",  # noqa: PLR2004 - a line's worth
        hint="a lock file is not edited; `lns lock REF -o FILE` writes it anew",
    )


class LockedManifests:
    """Implements `ManifestSource` for a lock: every tag is what the lock pins it to.

    What is pinned is asked for on this node first; only what is not there comes from its registry,
    by digest.
    """

    def __init__(self, lock: Lock, source: ManifestSource) -> None:
        self._source = source
        self._pinned = {lock.reference: _pin(lock.manifests[0])}
        # A reference to an image of several platforms names the index, not one of them.
        for entry in sorted(lock.manifests, key=lambda entry: entry.role != INDEX_ROLE):
            self._pinned.setdefault(_asked_for(entry), _pin(entry))

    async def fetch(
        self, reference: str, *, platform: Platform, offline: bool = False
    ) -> FetchedManifest:
        """See `ManifestSource.fetch`."""
        pinned = self._pinned.get(reference) or _own_pin(reference)
        if pinned is None:
            raise ManifestUnknown(
                f"{reference} is not in the lock",
                hint="lock again, or name it by its digest",
                metadata={"reference": reference},
            )
        try:
            return await self._source.fetch(pinned, platform=platform, offline=True)
        except (ManifestUnknown, BlobUnknown):
            if offline:
                raise
        return await self._source.fetch(pinned, platform=platform)


def _asked_for(entry: PinnedManifest) -> str:
    """Returns the reference as the resolver asks for it: components with the bundle's host."""
    if entry.role in _IMAGE_ROLES:
        return entry.requested
    host = "" if has_host(entry.requested) else f"{entry.repository.partition('/')[0]}/"
    return str(Reference.parse(f"{host}{entry.requested}"))


def _own_pin(reference: str) -> str | None:
    parsed = Reference.parse(reference)
    return str(parsed.pinned(parsed.digest)) if parsed.digest is not None else None


def _pin(entry: PinnedManifest) -> str:
    return f"{entry.repository}@{entry.manifest.digest}"


def _whole(entry: PinnedManifest) -> tuple[str, str, str, str, str, int]:
    manifest = entry.manifest
    return (*_name(entry), manifest.digest, manifest.media_type, manifest.size)


def _name(entry: PinnedManifest) -> tuple[str, str, str]:
    return entry.role, entry.requested, entry.repository


def _parse_entry(entry: Mapping[str, Any]) -> PinnedManifest:
    pinned = f"{entry['repository']}@{entry['digest']}"
    repository = Reference.parse(pinned).repository
    if repository != entry["repository"]:
        raise RequestInvalid(f"{entry['repository']!r} is no repository with its host")
    return PinnedManifest(
        role=entry["role"],
        requested=entry["requested"],
        repository=repository,
        manifest=Descriptor(
            media_type=entry["mediaType"], digest=Digest(entry["digest"]), size=entry["size"]
        ),
    )


def _scalar(text: str) -> str:
    """Returns a text as YAML that is read as text whatever it looks like."""
    # The escapes of `printable` are among those of YAML, and of no harm to who looks at a lock.
    return printable(json.dumps(text, ensure_ascii=False))


def _invalid(violations: Iterable[Violation]) -> RequestInvalid:
    found = tuple(violations)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    place = "" if found[0].subject == "$" else f"{found[0].subject} "
    return RequestInvalid(
        f"this is not a lock file: {place}{found[0].description}{more}",
        hint="`lns lock REF -o lns.lock` writes one",
        violations=found,
    )
