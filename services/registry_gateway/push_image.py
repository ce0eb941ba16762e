"""Pushing images as they are, so that their digests stay."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from services.core.artifacts.families import family_of_manifest
from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import (
    BlobsMissing,
    ImageUnknown,
    ManifestUnknown,
    PlatformUnsupported,
    ReferenceInvalid,
    Violation,
)
from services.core.manifest import Index, Manifest, parse_manifest
from services.core.platforms import Platform
from services.core.reference import Reference
from services.registry_gateway.manifests import Manifests, store_key
from services.registry_gateway.pins import Pins, PinSession
from services.registry_gateway.ports import (
    BlobSource,
    BlobStore,
    ImageSources,
    OpenedSource,
    StoredTag,
    StoreIndex,
)
from services.registry_gateway.progress import Board
from services.registry_gateway.pull import blobs_of
from services.registry_gateway.push import Pusher

_NO_PLATFORM: Final = Platform(os="unknown", architecture="unknown")


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedImage:
    """What a push or copy left in the registry."""

    reference: Reference
    descriptor: Descriptor
    transferred_bytes: int
    warnings: Sequence[str] = ()


class PushImage:
    """Pushes images from the store, layouts, archives and a Docker daemon."""

    def __init__(
        self,
        *,
        pusher: Pusher,
        manifests: Manifests,
        store: BlobStore,
        index: StoreIndex,
        pins: Pins,
        sources: ImageSources,
        platform: Platform,
        default_registry: str,
    ) -> None:
        self._pusher = pusher
        self._manifests = manifests
        self._store = store
        self._index = index
        self._pins = pins
        self._sources = sources
        self._platform = platform
        self._default_registry = default_registry

    async def run(
        self, source: str, target: Reference, *, all_platforms: bool, board: Board
    ) -> PushedImage:
        """Pushes one image.

        Args:
            source: a reference of the store, or what `ImageSources` accepts.
            target: where to.
            all_platforms: whether an index goes with all its platforms.
            board: shows the progress.

        Raises:
            ImageUnknown: there is no such source.
            PlatformUnsupported: the source has nothing for the gateway's platform.
            BlobsMissing: the source lacks something that its manifests name.
            RequestInvalid: the source cannot be read.
        """
        try:
            return await self._run(source, target, all_platforms=all_platforms, board=board)
        except PlatformUnsupported as error:
            error.hint = "--all-platforms pushes an image for every platform that it has"
            raise

    async def _run(
        self, source: str, target: Reference, *, all_platforms: bool, board: Board
    ) -> PushedImage:
        if self._sources.accepts(source):
            async with self._sources.open(source) as opened:
                parts = _parts_of(opened, self._platform, all_platforms=all_platforms)
                _check_blobs(parts, opened.blobs)
                await self._pusher.push(
                    target, parts, lambda blob: opened.blobs[blob.digest], board
                )
        else:
            async with self._pins.session() as pins:
                parts = await self._stored_parts(source, all_platforms, pins)
                await self._pusher.push(target, parts, self._store.source, board)
                await self._record(target, parts)
        return PushedImage(
            reference=target,
            descriptor=parts[-1].descriptor,
            transferred_bytes=board.moved,
            warnings=board.warnings,
        )

    async def _stored_parts(
        self,
        source: str,
        all_platforms: bool,
        pins: PinSession,
    ) -> Sequence[Manifest | Index]:
        reference, tag = await self._find(source)
        find = self._manifests
        try:
            root = await find.root(reference, offline=True, pins=pins)
            if all_platforms:
                parts = await find.everything(reference, root, offline=True, pins=pins)
            elif tag is not None and tag.manifest is not None:
                parts = [await find.child(reference, tag.manifest, offline=True, pins=pins)]
            else:
                parts = [
                    await find.select(reference, root, self._platform, offline=True, pins=pins)
                ]
        except ManifestUnknown as error:
            if all_platforms:
                raise BlobsMissing(
                    f"{error.message}, which {source} names",
                    hint=f"lns pull --all-platforms {source}",
                ) from error
            raise ImageUnknown(
                f"the store has no image {source}",
                hint="`lns image ls` lists what it has",
                metadata={"image": source},
            ) from error
        blobs = blobs_of(parts)
        await pins.add(blob.digest for blob in blobs)
        missing = await self._store.missing(blob.digest for blob in blobs)
        _check_missing(source, sorted(missing), hint=f"lns pull {source}")
        return parts

    async def _find(self, source: str) -> tuple[Reference, StoredTag | None]:
        try:
            reference = Reference.parse(source, default_registry=self._default_registry)
        except ReferenceInvalid as error:
            raise ReferenceInvalid(
                error.message,
                hint="a source is a reference of the store, or begins with oci:, oci-archive:,"
                " docker-archive: or docker-daemon:",
                metadata=error.metadata,
            ) from error
        return reference, await self._index.get_tag(store_key(reference))

    async def _record(self, target: Reference, parts: Sequence[Manifest | Index]) -> None:
        root = parts[-1]
        family = family_of_manifest(root) if isinstance(root, Manifest) else None
        await self._store.settle()
        await self._index.put_tag(
            StoredTag(
                reference=store_key(target),
                root=root.descriptor,
                manifest=None,
                family=family.slug if family else "",
                total_bytes=sum(blob.size for blob in blobs_of(parts)),
                created=datetime.now(UTC),
            )
        )


def _parts_of(
    opened: OpenedSource, platform: Platform, *, all_platforms: bool
) -> Sequence[Manifest | Index]:
    """Returns what is pushed of a source, children before parents."""
    found: dict[Digest, Manifest | Index] = {}

    def read(descriptor: Descriptor) -> Manifest | Index:
        raw = opened.manifests.get(descriptor.digest)
        if raw is None:
            _check_missing("the source", [descriptor.digest])
            raise AssertionError("unreachable")
        return parse_manifest(raw, media_type=descriptor.media_type, digest=descriptor.digest)

    def visit(here: Manifest | Index) -> None:
        if isinstance(here, Index):
            for entry in here.manifests:
                if entry.digest not in found:
                    visit(read(entry))
        found[here.descriptor.digest] = here

    root = read(opened.root)
    while isinstance(root, Index) and not all_platforms:
        offered = [opened.platforms.get(one.digest, _NO_PLATFORM) for one in root.unlabelled]
        root = read(root.select(platform, offered))
    visit(root)
    return list(found.values())


def _check_blobs(parts: Sequence[Manifest | Index], blobs: Mapping[Digest, BlobSource]) -> None:
    lacking = [blob.digest for blob in blobs_of(parts) if blob.digest not in blobs]
    _check_missing("the source", sorted(lacking))


def _check_missing(
    source: str, digests: Sequence[Digest], *, hint: str = "make the archive or layout again"
) -> None:
    if digests:
        raise BlobsMissing(
            f"{source} lacks {len(digests)} of the blobs that it names",
            hint=hint,
            violations=[
                Violation(subject=digest, description="is missing", type="MISSING")
                for digest in digests
            ],
        )
