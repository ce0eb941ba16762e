"""What one run plan is made of, before it is composed."""

from dataclasses import dataclass

from services.core.run_plan import Integration, PinnedManifest, PlanSource, Policy, ValueOrigin
from services.resolver.gathering import Component, Image
from services.resolver.mounts import PlannedMount
from services.resolver.request import Defaults, Overrides


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """Everything that one plan is made of.

    Attributes:
        source: what was asked for.
        label: what problems call the workload: `agent agents/hello:1`.
        name: suggested name.
        overrides: flags.
        defaults: of `lns config`.
        image: the image, or None for an imageless run.
        is_image_missing: whether there should be an image and a problem was noted instead.
        agent: the agent, or None for an image.
        sandbox: the bundle's sandbox, or None.
        mounts: all mounts, by path.
        policy: the merged policy, or None.
        integrations: what the bundle brings.
        origins: origins of values that were made before: policy, integrations, group.
        closure: every manifest, root first.
        group: name of the group, or empty.
        has_workflow: whether the bundle carries a workflow.
        warnings: what a person should read.
    """

    source: PlanSource
    label: str
    name: str
    overrides: Overrides
    defaults: Defaults
    image: Image | None = None
    is_image_missing: bool = False
    agent: Component | None = None
    sandbox: Component | None = None
    mounts: tuple[PlannedMount, ...] = ()
    policy: Policy | None = None
    integrations: tuple[Integration, ...] = ()
    origins: tuple[ValueOrigin, ...] = ()
    closure: tuple[PinnedManifest, ...] = ()
    group: str = ""
    has_workflow: bool = False
    warnings: tuple[str, ...] = ()
