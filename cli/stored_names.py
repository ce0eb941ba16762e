"""Names of images in the store as users give them: references, ids, and what a table shows."""

import re
from collections.abc import AsyncIterator, Sequence

from lns.registry.v1 import registry_service_pb2 as pb

from cli.paging import PAGE_SIZE, every
from lns.client.connection.session import Session
from services.core.errors import RequestInvalid

_ID = re.compile(r"(?:(?P<algorithm>sha256|sha512):)?(?P<digits>[0-9a-f]{4,128})…?")
_CUT = re.compile(r"(?P<repository>[^@]+)@(?P<id>sha(?:256|512):[0-9a-f]{4,127}…?)")
_WHOLE = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def stored_images(session: Session) -> AsyncIterator[pb.StoredImage]:
    """Iterates over everything that the store has, by reference."""
    request = pb.ListStoredImagesRequest(page_size=PAGE_SIZE)
    return every(session.registry.ListStoredImages, request, lambda page: page.images)


async def stored_name(session: Session, text: str) -> str:
    """Returns the reference that a text means: an id, whole or cut, becomes one; a name stays.

    Raises:
        RequestInvalid: an id could be that of several images.
    """
    cut = _CUT.fullmatch(text)
    if cut is not None and _WHOLE.fullmatch(cut["id"].rstrip("…")):
        return text
    match = _ID.fullmatch(cut["id"] if cut is not None else text)
    if match is None:
        return text
    repository = cut["repository"] if cut is not None else ""
    found = [
        one
        async for one in stored_images(session)
        if _has_id(one, match) and (not repository or repository_of(one.reference) == repository)
    ]
    digests = {_id_of(one, match) for one in found}
    if len(digests) > 1:
        raise RequestInvalid(
            f"{text} could be {len(digests)} images: {', '.join(sorted(digests))[:300]}",
            hint="give more of its digits",
        )
    if not digests:
        return text
    return f"{repository_of(found[0].reference)}@{digests.pop()}"


async def stored_names(session: Session, texts: Sequence[str]) -> list[str]:
    """Returns the references that texts mean, each once."""
    return list(dict.fromkeys([await stored_name(session, text) for text in texts]))


def repository_of(reference: str) -> str:
    """Returns a normalised reference without its tag and digest."""
    name = reference.partition("@")[0]
    head, colon, tail = name.rpartition(":")
    return head if colon and "/" not in tail else name


def _has_id(one: pb.StoredImage, match: re.Match[str]) -> bool:
    return bool(_id_of(one, match))


def _id_of(one: pb.StoredImage, match: re.Match[str]) -> str:
    """Returns the digest, of an image's index or its manifest, that begins so."""
    for digest in (one.descriptor.digest, one.platform_manifest.digest):
        algorithm, _, digits = digest.partition(":")
        if digits.startswith(match["digits"]) and match["algorithm"] in (None, algorithm):
            return digest
    return ""
