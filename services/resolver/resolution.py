"""One resolution: what is fetched for a reference, and the plans that come of it."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.chassis.tasks import together
from services.core.artifacts import families
from services.core.artifacts.families import family_of_manifest
from services.core.artifacts.specs import AgentSpec, SandboxSpec, bundle_components
from services.core.errors import ArtifactTypeUnsupported, LnsError
from services.core.platforms import Platform, emulated_beside
from services.core.run_plan import (
    Integration,
    OriginKind,
    PinnedManifest,
    PlanKind,
    PlanSource,
    RunPlan,
    ValueOrigin,
)
from services.resolver.bundles import (
    Bundle,
    check_integrations,
    check_sandbox,
    plan_integrations,
    plan_policy,
    sort_components,
    without_namesakes,
)
from services.resolver.composition import compose
from services.resolver.flags import parse_mount_flag
from services.resolver.gathering import (
    Component,
    Gathering,
    Image,
    describe,
    read_component,
    read_image,
)
from services.resolver.ingredients import Ingredients
from services.resolver.mounts import PlannedMount, merge_mounts, plan_mount
from services.resolver.ports import ManifestSource
from services.resolver.problems import Problems, ProblemType
from services.resolver.request import Defaults, Overrides

IMAGELESS_NAME: Final = "imageless"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a resolver goes by.

    Attributes:
        platform: platform of runs that name none.
        machine: the same with the variant that the machine's guests execute; None for no more than
            the baseline.
        version: version of lns, which sandboxes may demand a newer one of.
        parallel_fetches: how many manifests one resolution fetches at a time.
    """

    platform: Platform
    machine: Platform | None = None
    version: str
    parallel_fetches: int = 8


class Resolution:
    """One resolution of one reference; used once.

    Args:
        reference: what to resolve; empty for an imageless run.
        manifests: where manifests come from.
        settings: what the resolver goes by.
        platform: platform of the images.
        foreign: whether an image that has only another platform is taken, for an emulated guest.
        overrides: what the command line says.
        defaults: those of `lns config`.
    """

    def __init__(
        self,
        reference: str,
        *,
        manifests: ManifestSource,
        settings: Settings,
        platform: Platform,
        overrides: Overrides,
        defaults: Defaults,
        foreign: bool = False,
    ) -> None:
        self._reference = reference
        self._settings = settings
        self._machine = settings.machine or settings.platform
        executed = platform.on(self._machine)
        self._overrides = overrides
        self._defaults = defaults
        self._problems = Problems()
        self._gathering = Gathering(
            manifests,
            platform=platform,
            executed=executed,
            emulated=emulated_beside(executed) if foreign else (),
            problems=self._problems,
            parallel=settings.parallel_fetches,
        )

    async def run(self) -> tuple[RunPlan, ...]:
        """Resolves the reference; raises as `Resolver.resolve` says."""
        top = await self._gathering.fetch(self._reference)
        family = family_of_manifest(top.manifest)
        if family is None and top.manifest.is_image:
            image = read_image(self._reference, top, self._gathering.executed)
            return self._finish([await self._image_plan(image)])
        if family is None or family not in (families.AGENT, families.BUNDLE):
            raise ArtifactTypeUnsupported(
                f"{self._reference} is {describe(top, family)}, which cannot be run",
                hint="run an agent, a bundle or an image",
                metadata={"reference": self._reference, "family": family.slug if family else ""},
            )
        label = f"{family.slug} {self._reference}"
        try:
            root = await read_component(label, self._reference, top, family)
        except LnsError as error:
            self._problems.add_error(label, error)
            await self._look_at_flags()
            return self._finish([])
        if family is families.AGENT:
            return self._finish(await self._agent_plans(root, None))
        return self._finish(await self._bundle_plans(root))

    async def run_imageless(self) -> tuple[RunPlan, ...]:
        """Resolves a run without an image; raises as `Resolver.resolve_imageless` says."""
        mounts = merge_mounts([], await self._flag_mounts(), self._problems)
        source = PlanSource(kind=PlanKind.IMAGELESS)
        return self._finish([compose(await self._ingredients(source, mounts), self._problems)])

    async def _image_plan(self, image: Image) -> RunPlan | None:
        mounts = merge_mounts([], await self._flag_mounts(), self._problems)
        source = PlanSource(
            kind=PlanKind.IMAGE, reference=self._reference, digest=image.fetched.root.digest
        )
        ingredients = replace(
            await self._ingredients(source, mounts),
            label=f"image {self._reference}",
            name=image.fetched.repository.rpartition("/")[2],
            image=image,
            closure=(*image.pins, *_pins_of(mounts)),
            warnings=self._emulation(image),
        )
        return compose(ingredients, self._problems)

    def _emulation(self, image: Image | None) -> tuple[str, ...]:
        """Says that the guest of an image is emulated, where its architecture is not the node's."""
        machine = self._machine
        if image is None or machine.accepts(image.config.platform):
            return ()
        if not any(one.accepts(image.config.platform) for one in emulated_beside(machine)):
            return ()
        made_for = image.config.platform
        slower = f"its guest is emulated, slower than one of {machine}"
        return (f"{image.requested} is made for {made_for}: {slower}",)

    async def _bundle_plans(self, root: Component) -> list[RunPlan | None]:
        references = bundle_components(root.artifact.spec)
        components = await self._gathering.components(references, root.fetched)
        bundle = sort_components(root, references, components)
        bundle = without_namesakes(bundle, self._problems)
        if bundle.sandbox is not None:
            check_sandbox(bundle.sandbox, self._problems, version=self._settings.version)
        if len(bundle.agents) > 1 and (self._overrides.argv or self._overrides.entrypoint):
            self._problems.add(
                "command line",
                f"one command cannot replace those of {len(bundle.agents)} agents; run one of them",
                ProblemType.FLAG_INVALID,
            )
        return await self._agent_plans(root, bundle)

    async def _agent_plans(self, root: Component, bundle: Bundle | None) -> list[RunPlan | None]:
        """Composes a plan for each agent of a bundle, or for the agent that was asked for."""
        agents = bundle.agents if bundle is not None else (root,)
        of_bundle = bundle.mountable if bundle is not None else ()
        planned = [plan_mount(component, self._problems) for component in of_bundle]
        mounts = merge_mounts(
            [one for one in planned if one is not None], await self._flag_mounts(), self._problems
        )
        images = await together(self._agent_image(agent, bundle) for agent in agents)
        kind = PlanKind.AGENT if bundle is None else PlanKind.BUNDLE
        source = PlanSource(kind=kind, reference=self._reference, digest=root.fetched.root.digest)
        shared = await self._ingredients(source, mounts, bundle=bundle)
        plans = []
        for agent, image in zip(agents, images, strict=True):
            ingredients = replace(
                shared,
                label=agent.label,
                name=agent.artifact.name,
                agent=agent,
                image=image,
                is_image_missing=image is None,
                group=root.artifact.name if len(agents) > 1 else "",
                closure=self._closure(agent, image, mounts, bundle),
                warnings=(*shared.warnings, *self._emulation(image)),
            )
            plans.append(compose(ingredients, self._problems))
        if not agents:
            await self._look_at_flags()
        self._check_ports_of_group(plans)
        return plans

    async def _ingredients(
        self,
        source: PlanSource,
        mounts: tuple[PlannedMount, ...],
        *,
        bundle: Bundle | None = None,
    ) -> Ingredients:
        """Returns what all plans of one resolution have in common; an imageless run has no more."""
        # Large policies take a second to be checked and merged.
        policy, origins = await asyncio.to_thread(
            plan_policy, bundle, self._overrides.policy, self._problems
        )
        integrations: tuple[Integration, ...] = ()
        warnings: list[str] = []
        if bundle is not None:
            integrations, more = plan_integrations(bundle)
            group = ValueOrigin(path="group", kind=OriginKind.BUNDLE, detail=self._reference)
            origins = (*origins, *more, *((group,) if len(bundle.agents) > 1 else ()))
            if bundle.workflow is not None:
                carried = bundle.workflow.fetched.pinned
                origins += (
                    ValueOrigin(path="workflow", kind=OriginKind.COMPONENT, detail=carried),
                )
            warnings = check_integrations(bundle, policy, self._problems)
        return Ingredients(
            source=source,
            label="the run",
            name=IMAGELESS_NAME,
            overrides=self._overrides,
            defaults=self._defaults,
            sandbox=bundle.sandbox if bundle is not None else None,
            mounts=mounts,
            policy=policy,
            integrations=integrations,
            origins=origins,
            closure=_pins_of(mounts),
            has_workflow=bundle is not None and bundle.workflow is not None,
            warnings=tuple(warnings),
        )

    async def _agent_image(self, agent: Component, bundle: Bundle | None) -> Image | None:
        reference = AgentSpec.of(agent.artifact.spec).image
        label = f"image {reference} of {agent.label}"
        sandbox = bundle.sandbox if bundle is not None else None
        if reference is None and sandbox is not None:
            reference = SandboxSpec.of(sandbox.artifact.spec).base_image
            label = f"baseImage {reference} of {sandbox.label}"
        if reference is not None:
            return await self._gathering.image(label, reference)
        if bundle is None or not bundle.is_sandbox_broken:
            self._problems.add(
                agent.label,
                "names no image; give it spec.image, or its bundle a sandbox with a baseImage",
                ProblemType.NO_IMAGE,
            )
        return None

    async def _look_at_flags(self) -> None:
        """Notes the problems of flags where there is no agent to compose a plan for."""
        mounts = merge_mounts([], await self._flag_mounts(), self._problems)
        shared = await self._ingredients(PlanSource(kind=PlanKind.IMAGELESS), mounts)
        compose(replace(shared, is_image_missing=True), self._problems)

    async def _flag_mounts(self) -> list[PlannedMount]:
        planned = await together(self._flag_mount(text) for text in self._overrides.mounts)
        return [one for one in planned if one is not None]

    async def _flag_mount(self, text: str) -> PlannedMount | None:
        label = f"--mount {text[:200]}"
        try:
            flag = parse_mount_flag(text)
        except LnsError as error:
            self._problems.add(label, error.message, ProblemType.FLAG_INVALID)
            return None
        component = await self._gathering.mountable(label, flag.reference)
        if component is None:
            return None
        return plan_mount(component, self._problems, flag_path=flag.path, is_flag=True)

    def _closure(
        self,
        agent: Component,
        image: Image | None,
        mounts: tuple[PlannedMount, ...],
        bundle: Bundle | None,
    ) -> tuple[PinnedManifest, ...]:
        of_image = image.pins if image is not None else ()
        if bundle is None:
            return (*agent.pins, *of_image, *_pins_of(mounts))
        sandbox = bundle.sandbox.pins if bundle.sandbox is not None else ()
        policies = bundle.policies if self._overrides.policy is None else ()
        rest = (*policies, *bundle.integrations)
        workflow = bundle.workflow.pins if bundle.workflow is not None else ()
        return (
            *bundle.root.pins,
            *agent.pins,
            *of_image,
            *sandbox,
            *(entry for component in rest for entry in component.pins),
            *_pins_of(mounts),
            *workflow,
        )

    def _check_ports_of_group(self, plans: Sequence[RunPlan | None]) -> None:
        taken: dict[tuple[str, int], str] = {}
        for plan in plans:
            for port in plan.ports if plan is not None else ():
                place = (port.host_ip, port.host_port)
                if (
                    plan is not None
                    and port.host_port
                    and taken.setdefault(place, plan.name) != plan.name
                ):
                    self._problems.add(
                        f"agent {plan.name}",
                        f"publishes port {port.host_port} of {port.host_ip}, as agent"
                        f" {taken[place]} does; 0 picks a free port",
                        ProblemType.PORT_CONFLICT,
                    )

    def _finish(self, plans: Sequence[RunPlan | None]) -> tuple[RunPlan, ...]:
        self._problems.raise_if_any()
        return tuple(plan for plan in plans if plan is not None)


def _pins_of(mounts: Iterable[PlannedMount]) -> tuple[PinnedManifest, ...]:
    return tuple(entry for planned in mounts for entry in planned.component.pins)
