"""The main use case: an OCI image and mounts become a composefs image of the store."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from services.chassis.single_flight import SingleFlight
from services.chassis.tasks import together
from services.core.digest import Digest
from services.core.errors import ContentCorrupt, LayerUnsafe, LnsError
from services.materializer.image_plan import MountPlan, read_layers, read_mounts, request_key
from services.materializer.images import (
    Image,
    ImageLayer,
    LayerSource,
    Materialized,
    Mount,
    Progress,
    Stage,
    Tree,
)
from services.materializer.metrics import IMAGE_SECONDS, IMAGES, LAYER_SECONDS, LAYERS
from services.materializer.pins import Pins
from services.materializer.ports import Blobs, Composer, Images, Layers, Refetch

Watcher = Callable[[Progress], None]
"""Takes the steps of a materialization as they happen."""


class Materialize:
    """Makes images; every layer and every image once, however many ask for it at a time."""

    def __init__(
        self,
        *,
        blobs: Blobs,
        refetch: Refetch,
        layers: Layers,
        composer: Composer,
        images: Images,
        pins: Pins,
    ) -> None:
        self._blobs = blobs
        self._refetch = refetch
        self._layers = layers
        self._composer = composer
        self._images = images
        self._pins = pins
        self._layer_flights: SingleFlight[Digest, None] = SingleFlight()
        self._image_flights: SingleFlight[str, Image] = SingleFlight()

    async def run(
        self, manifest_digest: Digest | None, mounts: Sequence[Mount], watch: Watcher
    ) -> Materialized:
        """Returns the image of an OCI manifest (None: of an empty root) with mounts.

        A blob that turns out to be damaged in the store is pulled again, once.

        Raises:
            BlobsMissing: something of the image is not in the blob store.
            ArtifactTypeUnsupported, RegistryProtocol, LimitExceeded: the manifests do not describe
                an image and artifacts that can be mounted.
            LayerUnsafe, LayerUnsupported: a layer is refused; metadata names layer and entry.
            ContentCorrupt: bytes do not match a digest.
            CapacityExhausted: the disk is full.
            ServiceUnavailable: the gateway does not answer.
        """
        try:
            return await self._run(manifest_digest, mounts, watch)
        except ContentCorrupt as damage:
            if "digest" not in damage.metadata:
                raise
            await self._bring_back(manifest_digest, mounts, damage)
        return await self._run(manifest_digest, mounts, watch)

    async def _run(
        self, manifest_digest: Digest | None, mounts: Sequence[Mount], watch: Watcher
    ) -> Materialized:
        key = request_key(manifest_digest, mounts)
        found = await self._images.find_made(key)
        plan = MountPlan()
        if mounts:
            plan = await read_mounts(self._blobs, mounts)
        if found is not None:
            IMAGES.labels("exists").inc()
            return Materialized(image=found, warnings=plan.warnings, already_existed=True)
        image = await self._image_flights.run(
            key, lambda: self._counted(manifest_digest, plan, key, watch)
        )
        return Materialized(image=image, warnings=plan.warnings)

    async def _bring_back(
        self, manifest_digest: Digest | None, mounts: Sequence[Mount], damage: ContentCorrupt
    ) -> None:
        """Has the gateway mend what an image is made of; raises `damage` where it cannot."""
        manifests = {manifest_digest, *(mount.manifest_digest for mount in mounts)}
        try:
            for digest in sorted(filter(None, manifests)):
                await self._refetch.manifest(digest)
        except LnsError as failure:
            damage.message = f"{damage.message}, and cannot be pulled again: {failure.message}"
            raise damage from failure

    async def rebuild(self, source: LayerSource) -> None:
        """Makes a layer again from its blob, in place of the one in the store.

        Raises: as `run`.
        """
        async with self._blobs.file(source.blob_digest) as path:
            await self._layers.build(source, path, lambda _: None, replace=True)

    async def rebuild_mounts(self, mounts: Sequence[Mount]) -> None:
        """Makes a layer of mounts again, in place of the one in the store; raises as `run`."""
        plan = await read_mounts(self._blobs, mounts)
        if plan.diff_id is not None:
            await self._build_mounts(plan, plan.diff_id, replace=True)

    async def _counted(
        self, manifest_digest: Digest | None, plan: MountPlan, key: str, watch: Watcher
    ) -> Image:
        outcome = "failed"
        try:
            with IMAGE_SECONDS.time():
                image = await self._make(manifest_digest, plan, key, watch)
            outcome = "made"
            return image
        finally:
            IMAGES.labels(outcome).inc()

    async def _make(
        self, manifest_digest: Digest | None, plan: MountPlan, key: str, watch: Watcher
    ) -> Image:
        sources = await read_layers(self._blobs, manifest_digest) if manifest_digest else ()
        diff_ids = [source.diff_id for source in sources]
        if plan.diff_id is not None:
            diff_ids.append(plan.diff_id)
        with self._pins.hold(diff_ids):
            await self._have_layers(sources, plan, watch)
            layers = [await self._described(source.diff_id, source) for source in sources]
            if plan.diff_id is not None:
                layers.append(await self._described(plan.diff_id, None))
            tree = Tree(layers=tuple(diff_ids), mounts=plan.mounts)
            async with self._composer.compose(tree) as (composed, path):
                image = Image(
                    image_digest=composed.digest,
                    manifest_digest=manifest_digest,
                    layers=tuple(layers),
                    metadata_bytes=composed.metadata_bytes,
                    inode_count=composed.inode_count,
                    has_acl=composed.has_acl,
                    read_only_paths=composed.read_only_paths,
                    mounts=plan.mounts,
                    create_time=datetime.now(UTC),
                )
                return await self._images.add(image, path, key=key)

    async def _have_layers(
        self, sources: Sequence[LayerSource], plan: MountPlan, watch: Watcher
    ) -> None:
        """Sees to it that every layer is in the store; the first failure ends the others."""
        unique = {source.diff_id: source for source in sources}
        work = [self._have_layer(source, watch) for source in unique.values()]
        if plan.diff_id is not None:
            work.append(self._have_mounts(plan, plan.diff_id, watch))
        await together(work)

    async def _have_layer(self, source: LayerSource, watch: Watcher) -> None:
        total = source.blob_bytes
        step = Progress(digest=source.blob_digest, stage=Stage.WAITING, total_bytes=total)
        if await self._layers.find(source.diff_id) is not None:
            watch(dataclasses.replace(step, stage=Stage.EXISTS, done_bytes=total))
            LAYERS.labels("exists").inc()
            return
        watch(step)

        def progressed(done: int) -> None:
            watch(dataclasses.replace(step, stage=Stage.UNPACKING, done_bytes=done))

        await self._layer_flights.run(source.diff_id, lambda: self._build_layer(source, progressed))
        watch(dataclasses.replace(step, stage=Stage.DONE, done_bytes=total))

    async def _build_layer(self, source: LayerSource, progressed: Callable[[int], None]) -> None:
        try:
            async with self._blobs.file(source.blob_digest) as path:
                with LAYER_SECONDS.labels("image").time():
                    await self._layers.build(source, path, progressed)
            LAYERS.labels("made").inc()
        except LayerUnsafe as error:
            error.metadata.setdefault("layer", source.blob_digest)
            raise

    async def _have_mounts(self, plan: MountPlan, diff_id: Digest, watch: Watcher) -> None:
        step = Progress(digest=diff_id, stage=Stage.WAITING)
        if await self._layers.find(diff_id) is not None:
            watch(dataclasses.replace(step, stage=Stage.EXISTS))
            return
        watch(step)
        await self._layer_flights.run(diff_id, lambda: self._build_mounts(plan, diff_id))
        watch(dataclasses.replace(step, stage=Stage.DONE))

    async def _build_mounts(
        self, plan: MountPlan, diff_id: Digest, *, replace: bool = False
    ) -> None:
        digests = {digest for source in plan.sources for digest in source.blobs}
        async with contextlib.AsyncExitStack() as files:
            blobs = {
                digest: await files.enter_async_context(self._blobs.file(digest))
                for digest in sorted(digests)
            }
            with LAYER_SECONDS.labels("mounts").time():
                await self._layers.build_mounts(diff_id, plan.sources, blobs, replace=replace)
            LAYERS.labels("made").inc()

    async def _described(self, diff_id: Digest, source: LayerSource | None) -> ImageLayer:
        layer = await self._layers.find(diff_id)
        if layer is None:
            raise AssertionError("a pinned layer stays in the store")
        return (
            dataclasses.replace(layer, blob_digest=source.blob_digest)
            if source is not None
            else layer
        )
