"""Agents and bundles in files of this machine, run without any registry.

A file is put into the store's own namespace, content beside it with it; a bundle's components are
files beside it, named by path or found by what they are. From there on it is a reference like any.
"""

import asyncio
import json
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lns.registry.v1 import registry_service_pb2 as pb
from lns.resolver.v1 import resolver_service_pb2 as resolver_pb

from lns.client.content.document_file import read_document
from lns.client.content.upload import BlobWriter, upload_content
from services.core.artifacts.documents import Artifact, parse_artifact, parse_document
from services.core.artifacts.families import AGENT, BUNDLE
from services.core.errors import ArtifactInvalid, LnsError, RequestInvalid
from services.core.reference import STORE_HOST, has_host

_SUFFIXES = (".yaml", ".yml", ".json")
_BESIDE_MAX = 500
_TAG = "latest"


class Gateway(BlobWriter, Protocol):
    """The gateway, as far as putting artifacts into the store needs it."""

    def PushArtifact(  # noqa: N802 - the RPC's name
        self, request: pb.PushArtifactRequest, /
    ) -> Awaitable[pb.PushArtifactResponse]:
        """Pushes one artifact."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An artifact that is in the store now: its reference without host, and its digest."""

    path: str
    digest: str


async def place_file(request: resolver_pb.ResolveRequest, gateway: Gateway) -> None:
    """Puts the file that a request names into the store, and its reference into the request.

    Raises:
        RequestInvalid: there is no such file, or it is nothing that can be run.
        ArtifactInvalid: it, or what it is made of, is not valid; the message names the file.
        LnsError: as the gateway gave it.
    """
    path, artifact = await asyncio.to_thread(_open, request.reference)
    if artifact.family not in (AGENT, BUNDLE):
        raise RequestInvalid(
            f"{path} is a {artifact.family.slug}, which cannot be run",
            hint="run an agent or a bundle; `lns run --mount` mounts what was pushed",
        )
    placed = await _place(path, artifact, gateway)
    request.reference = f"{STORE_HOST}/{placed.path}@{placed.digest}"


async def _place(path: Path, artifact: Artifact, gateway: Gateway) -> Placed:
    document = json.loads(json.dumps(artifact.document))
    if artifact.family is BUNDLE:
        beside: dict[tuple[str, str], Path] | None = None
        for entry in _entries(document["spec"]["components"]):
            ref = str(entry["ref"])
            if beside is None:
                beside = await asyncio.to_thread(_files_beside, path)
            found = beside.get(_named(ref)) if not has_host(ref) else None
            if found is None:
                continue
            component = await _place(found, await asyncio.to_thread(_read, found), gateway)
            entry["ref"] = component.path
            if "digest" not in entry:
                entry["digest"] = component.digest
    name = f"{artifact.family.path_segment}/{artifact.name}"
    request = pb.PushArtifactRequest(
        reference=f"{STORE_HOST}/{name}:{_TAG}",
        family=artifact.family.slug,
        document=json.dumps(document).encode(),
    )
    content = await asyncio.to_thread(_content_of, path, artifact)
    if content is not None:
        request.layers.append(await upload_content(content, gateway))
    response = await gateway.PushArtifact(request)
    return Placed(path=name, digest=response.descriptor.digest)


def _entries(components: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for value in components.values():
        yield from value if isinstance(value, list) else [value]


def _named(ref: str) -> tuple[str, str]:
    """What a reference without a host asks for: a path segment of a family, and a name."""
    path = ref.partition("@")[0].partition(":")[0]
    segments = path.split("/")
    return (segments[-2] if len(segments) > 1 else "", segments[-1])


def _files_beside(path: Path) -> dict[tuple[str, str], Path]:
    """The artifacts in the folder of a file and in its folders, by path segment and name."""
    found: dict[tuple[str, str], Path] = {}
    here = path.parent
    files = [*here.glob("*"), *here.glob("*/*")]
    for one in sorted(files)[:_BESIDE_MAX]:
        if one.suffix not in _SUFFIXES or not one.is_file() or one == path:
            continue
        try:
            artifact = parse_artifact(read_document(str(one)))
        except (LnsError, OSError):
            continue  # something else, or not valid: it is missed where it is wanted
        found.setdefault((artifact.family.path_segment, artifact.name), one)
    return found


def _content_of(path: Path, artifact: Artifact) -> Path | None:
    """The folder beside a file that has its content: named as the file, or as the artifact."""
    if not artifact.family.has_content:
        return None
    for candidate in (path.with_suffix(""), path.parent / artifact.name):
        if candidate.is_dir():
            return candidate
    return None


def _open(name: str) -> tuple[Path, Artifact]:
    path = Path(name).expanduser()
    if path.is_dir():
        raise RequestInvalid(
            f"{path} is a directory", hint="name the agent's or the bundle's file in it"
        )
    return path, _read(path)


def _read(path: Path) -> Artifact:
    data = read_document(str(path))
    try:
        return parse_artifact(data)
    except ArtifactInvalid as error:
        if "kind" not in parse_document(data):
            error.hint = "`lns init agent` writes a file to start from"
        error.message = f"{path}: {error.message}"
        raise
