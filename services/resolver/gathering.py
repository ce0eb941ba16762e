"""Fetches everything that a plan stands on: in parallel, what is shared once.

Whatever is wrong with a component becomes a problem of the plan and leaves None in its place, so
that the others are still looked at.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from services.chassis.tasks import together
from services.core.artifacts.documents import Artifact, parse_artifact
from services.core.artifacts.families import BUNDLE, POLICY, Family, family_of_manifest
from services.core.artifacts.specs import ComponentRef
from services.core.digest import Digest
from services.core.errors import (
    ArtifactTypeUnsupported,
    DigestMismatch,
    LnsError,
    ManifestUnknown,
    PlatformUnsupported,
)
from services.core.platforms import Platform, way_out
from services.core.reference import Reference, has_host
from services.core.run_plan import PinnedManifest
from services.resolver.image_config import ImageConfig, parse_image_config
from services.resolver.ports import FetchedManifest, ManifestSource
from services.resolver.problems import Problems, ProblemType

INDEX_ROLE: Final = "index"

_LARGE_DOCUMENT: Final = 16 * 1024
"""Bytes whose validation takes some ten milliseconds."""

_parse_small = lru_cache(maxsize=1024)(parse_artifact)
"""What takes most of a warm resolution is to validate documents that were valid before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A typed artifact that was fetched and is valid.

    Attributes:
        label: what problems call it: `tools[1] tools/search:1`.
        requested: its reference as written.
        fetched: its manifest.
        artifact: its document.
    """

    label: str
    requested: str
    fetched: FetchedManifest
    artifact: Artifact

    @property
    def family(self) -> Family:
        """Its family."""
        return self.artifact.family

    @property
    def pins(self) -> tuple[PinnedManifest, ...]:
        """What a plan with this component stands on."""
        return pin(self.family.slug, self.requested, self.fetched)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that was fetched and is valid for the platform."""

    requested: str
    fetched: FetchedManifest
    config: ImageConfig

    @property
    def pins(self) -> tuple[PinnedManifest, ...]:
        """What a plan with this image stands on: the index too, where there is one."""
        return pin("image", self.requested, self.fetched)


class Gathering:
    """What one resolution fetches.

    Args:
        source: where manifests come from.
        platform: platform of the images.
        executed: the same with the variant that the machine's guests execute.
        emulated: further platforms, tried in turn for an image that has not the first.
        problems: takes what is wrong.
        parallel: how many manifests are fetched at a time.
    """

    def __init__(
        self,
        source: ManifestSource,
        *,
        platform: Platform,
        executed: Platform,
        emulated: tuple[Platform, ...] = (),
        problems: Problems,
        parallel: int,
    ) -> None:
        self._source = source
        self._platform = platform
        self.executed = (executed, *emulated)
        self._problems = problems
        self._slots = asyncio.Semaphore(parallel)
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._outcomes: dict[str, FetchedManifest | LnsError] = {}

    async def components(
        self, references: Iterable[ComponentRef], bundle: FetchedManifest
    ) -> list[Component | None]:
        """Fetches the components of a bundle, in the order given.

        Raises:
            LnsError: the resolver cannot work at all.
        """
        listed: dict[tuple[str, str, str], ComponentRef] = {}
        work = []
        for one in references:
            first = listed.setdefault((one.family.slug, one.ref, one.digest or ""), one)
            again = first if first is not one and one.family is not POLICY else None
            work.append(self._component(one, bundle, again=again))
        return await together(work)

    async def mountable(self, label: str, reference: str) -> Component | None:
        """Fetches what a flag wants mounted.

        Raises:
            LnsError: the resolver cannot work at all.
        """
        problems = self._problems.part()
        try:
            fetched = await self.fetch(reference)
            family = family_of_manifest(fetched.manifest)
            if family is None or not family.is_mountable:
                raise ArtifactTypeUnsupported(
                    f"{reference} is {describe(fetched, family)}, which is not mounted",
                    hint="model, tool, knowledge and fileset artifacts are",
                )
            return await read_component(label, reference, fetched, family)
        except LnsError as error:
            problems.add_error(label, error)
            return None

    async def image(self, label: str, reference: str) -> Image | None:
        """Fetches an image for the platform.

        Raises:
            LnsError: the resolver cannot work at all.
        """
        problems = self._problems.part()
        try:
            return read_image(reference, await self.fetch(reference), self.executed)
        except LnsError as error:
            problems.add_error(label, error)
            return None

    async def fetch(self, reference: str) -> FetchedManifest:
        """Fetches a manifest; a reference that was fetched before is not fetched again.

        Raises:
            LnsError: as `ManifestSource.fetch`.
        """
        async with self._turns[reference]:
            outcome = self._outcomes.get(reference)
            if outcome is None:
                outcome = self._outcomes[reference] = await self._fetch(reference)
        if isinstance(outcome, LnsError):
            raise outcome
        return outcome

    async def _fetch(self, reference: str) -> FetchedManifest | LnsError:
        async with self._slots:
            try:
                return await self._source.fetch(reference, platform=self._platform)
            except PlatformUnsupported as error:
                return await self._fetch_emulated(reference, error)
            except LnsError as error:
                return error

    async def _fetch_emulated(
        self, reference: str, refusal: PlatformUnsupported
    ) -> FetchedManifest | LnsError:
        for platform in self.executed[1:]:
            try:
                return await self._source.fetch(reference, platform=platform)
            except PlatformUnsupported:
                continue
            except LnsError as error:
                return error
        return refusal

    async def _component(
        self, wanted: ComponentRef, bundle: FetchedManifest, *, again: ComponentRef | None
    ) -> Component | None:
        """Fetches a component; `again` is the place that names the same one before it."""
        problems = self._problems.part()
        label = f"{wanted.place} {wanted.ref}"
        if again is not None:
            problems.add(label, f"is listed twice, as {again.place} too", ProblemType.DUPLICATE)
            return None
        try:
            fetched = await self._pinned(wanted, bundle.host)
            family = family_of_manifest(fetched.manifest)
            if family is BUNDLE and fetched.root.digest == bundle.root.digest:
                description = "the bundle names itself; name an agent"
                problems.add(label, description, ProblemType.DEPENDENCY_CYCLE)
                return None
            if family is not wanted.family:
                nested = "; bundles do not nest, name its agent" if family is BUNDLE else ""
                raise ArtifactTypeUnsupported(
                    f"is {describe(fetched, family)}, where {article(wanted.family)} is expected"
                    f"{nested}"
                )
            return await read_component(label, wanted.ref, fetched, wanted.family)
        except LnsError as error:
            problems.add_error(label, error)
            return None

    async def _pinned(self, wanted: ComponentRef, host: str) -> FetchedManifest:
        """Fetches a component; by the digest that is enforced, where there is one."""
        text = wanted.ref if has_host(wanted.ref) else f"{host}/{wanted.ref}"
        reference = Reference.parse(text)
        if not wanted.digest:
            return await self.fetch(str(reference))
        digest = Digest(wanted.digest)
        if reference.digest not in (None, digest):
            raise DigestMismatch(f"its ref and its digest name two manifests: {digest} beside it")
        try:
            return await self.fetch(str(reference.pinned(digest)))
        except ManifestUnknown as error:
            raise DigestMismatch(
                f"{reference.repository} has no manifest {digest}, which is enforced"
                f"{await self._what_it_is(reference)}",
                hint="correct the digest, or leave it out",
            ) from error

    async def _what_it_is(self, reference: Reference) -> str:
        if reference.tag is None:
            return ""
        try:
            fetched = await self.fetch(str(reference))
        except LnsError:
            return ""
        return f"; tag {reference.tag} names {fetched.root.digest}"


def pin(role: str, requested: str, fetched: FetchedManifest) -> tuple[PinnedManifest, ...]:
    """Returns a manifest as a plan's closure names it, after the index that led to it."""
    manifest = PinnedManifest(
        role=role,
        requested=requested,
        repository=fetched.repository,
        manifest=fetched.manifest.descriptor,
    )
    if fetched.root.digest == manifest.manifest.digest:
        return (manifest,)
    return replace(manifest, role=INDEX_ROLE, manifest=fetched.root), manifest


async def read_component(
    label: str, requested: str, fetched: FetchedManifest, family: Family
) -> Component:
    """Reads the document of a fetched artifact; a large one in a thread.

    Raises:
        ArtifactInvalid: it is not valid.
    """
    if len(fetched.config) > _LARGE_DOCUMENT:
        artifact = await asyncio.to_thread(parse_artifact, fetched.config, family)
    else:
        artifact = _parse_small(fetched.config, family)
    return Component(label=label, requested=requested, fetched=fetched, artifact=artifact)


def read_image(requested: str, fetched: FetchedManifest, executed: tuple[Platform, ...]) -> Image:
    """Reads the configuration of a fetched image.

    Args:
        requested: the reference as it was written.
        fetched: the image.
        executed: the platforms that it may be for; one that names none is for the first.

    Raises:
        ArtifactTypeUnsupported: it is no image.
        PlatformUnsupported: it is made for another platform.
        RegistryProtocol, LimitExceeded: its configuration cannot be read.
    """
    if not fetched.manifest.is_image:
        family = family_of_manifest(fetched.manifest)
        raise ArtifactTypeUnsupported(
            f"{requested} is {describe(fetched, family)}, where an image is expected"
        )
    platform = executed[0]
    config = parse_image_config(fetched.config)
    if not config.platform.is_known:
        config = replace(config, platform=platform)
    if not any(one.accepts(config.platform) for one in executed):
        kind = replace(platform, variant="")
        same = kind == replace(config.platform, variant="")
        executes = f"; the CPU of the guest executes {platform} at most" if same else ""
        raise PlatformUnsupported(
            f"{requested} is made for {config.platform}, not for {kind if same else platform}"
            f"{executes}",
            hint="choose another image, or another --platform"
            if same
            else way_out(platform, [config.platform]),
            metadata={"platform": str(platform)},
        )
    return Image(requested=requested, fetched=fetched, config=config)


def describe(fetched: FetchedManifest, family: Family | None) -> str:
    """Says what a manifest is: `a policy`, `an image`, `an artifact of type …`."""
    if family is not None:
        return article(family)
    if fetched.manifest.is_image:
        return "an image"
    return f"an artifact of type {fetched.manifest.artifact_type[:100]!r}"


def article(family: Family) -> str:
    """Returns a family's slug with its article."""
    return f"an {family.slug}" if family.slug[0] in "aeiou" else f"a {family.slug}"
