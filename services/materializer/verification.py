"""Checks images of the store, and makes what is damaged anew from its blobs."""

from collections.abc import Awaitable, Sequence
from dataclasses import replace

from services.core.digest import Digest
from services.core.errors import (
    BlobsMissing,
    ContentCorrupt,
    LayerUnsafe,
    LayerUnsupported,
    LnsError,
)
from services.materializer.images import (
    Damage,
    Image,
    ImageLayer,
    LayerSource,
    Verification,
    image_prefix,
)
from services.materializer.materialize import Materialize
from services.materializer.pins import Pins
from services.materializer.ports import Composer, Images, Refetch


class Verify:
    """Hashes everything that an image is made of again."""

    def __init__(
        self,
        *,
        composer: Composer,
        images: Images,
        pins: Pins,
        materialize: Materialize,
        refetch: Refetch,
    ) -> None:
        self._composer = composer
        self._images = images
        self._pins = pins
        self._materialize = materialize
        self._refetch = refetch

    async def run(self, name: str, *, repair: bool) -> Verification:
        """Says what of an image is damaged; with `repair` makes that anew.

        A layer is made again from its blob, which is pulled again where that is lost or damaged,
        too. What cannot be repaired says why.

        Raises:
            RequestInvalid: the name cannot name an image.
            ImageUnknown: there is no such image.
        """
        image = await self._images.get(image_prefix(name))
        with self._pins.hold(image.tree.layers):
            found = await self._check(image)
            if not found.damages:
                await self._images.vouch(image)
            if not repair or not found.damages:
                return found
            failures = await self._repair(image, {damage.diff_id for damage in found.damages})
            after = await self._check(image)
        return replace(
            after,
            damages=tuple(
                replace(damage, repaired=True)
                if damage not in after.damages
                else _explained(damage, failures.get(damage.diff_id))
                for damage in found.damages
            ),
        )

    async def _check(self, image: Image) -> Verification:
        return await self._composer.verify(
            image.tree,
            metadata=self._images.metadata_file(image.image_digest),
            digest=image.image_digest,
        )

    async def _repair(
        self, image: Image, damaged: set[Digest | None]
    ) -> dict[Digest | None, LnsError]:
        """Makes what is damaged anew; returns why it could not where it could not."""
        layers = [layer for layer in image.layers if layer.diff_id in damaged]
        failures = await self._rebuild(image, layers)
        lacking = [layer for layer in layers if _lacks_blob(failures.get(layer.diff_id))]
        if lacking:
            failure = await _attempt(self._refetch_blobs(image, lacking))
            if failure is None:
                again = await self._rebuild(image, lacking)
            else:
                again = {layer.diff_id: failure for layer in lacking}
            done = {layer.diff_id for layer in lacking} - again.keys()
            failures = {key: why for key, why in {**failures, **again}.items() if key not in done}
        if None in damaged:
            failure = await _attempt(self._repair_metadata(image))
            if failure is not None:
                failures[None] = failure
        return failures

    async def _rebuild(
        self, image: Image, layers: Sequence[ImageLayer]
    ) -> dict[Digest | None, LnsError]:
        """Makes layers again from their blobs; returns why where that failed."""
        failures: dict[Digest | None, LnsError] = {}
        for layer in layers:
            if layer.blob_digest is None:
                rebuilding = self._materialize.rebuild_mounts(image.mounts)
            else:
                rebuilding = self._materialize.rebuild(
                    LayerSource(blob_digest=layer.blob_digest, blob_bytes=0, diff_id=layer.diff_id)
                )
            failure = await _attempt(rebuilding)
            if failure is not None:
                failures[layer.diff_id] = failure
        return failures

    async def _refetch_blobs(self, image: Image, layers: Sequence[ImageLayer]) -> None:
        """Has everything pulled again that these layers are made from, and is lost or damaged."""
        of_mounts = [mount.manifest_digest for mount in image.mounts]
        manifests = {
            digest
            for layer in layers
            for digest in (of_mounts if layer.blob_digest is None else [image.manifest_digest])
        }
        for digest in sorted(filter(None, manifests)):
            await self._refetch.manifest(digest)

    async def _repair_metadata(self, image: Image) -> None:
        async with self._composer.compose(image.tree) as (composed, path):
            if composed.digest == image.image_digest:
                await self._images.restore(image.image_digest, path)


def _lacks_blob(failure: LnsError | None) -> bool:
    """Whether a layer could not be made again for its blob: it was made from that once."""
    return isinstance(failure, BlobsMissing | ContentCorrupt | LayerUnsafe | LayerUnsupported)


async def _attempt(repair: Awaitable[None]) -> LnsError | None:
    try:
        await repair
    except LnsError as error:
        return error
    return None


def _explained(damage: Damage, failure: LnsError | None) -> Damage:
    if failure is None:
        return damage
    why = f"{damage.description}; it could not be repaired: {failure.message}"
    return replace(damage, description=f"{why} ({failure.hint})" if failure.hint else why)
