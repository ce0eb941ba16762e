"""What a bundle's components add up to: mounts, policy, integrations, and what lns must offer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from services.core.artifacts import families
from services.core.artifacts.documents import canonical_json
from services.core.artifacts.specs import ComponentRef, SandboxSpec
from services.core.errors import DigestMismatch, LnsError
from services.core.policy import integration_id, merge_policies, policy_of_spec
from services.core.policy_file import parse_policy_file
from services.core.run_plan import Integration, OriginKind, Policy, ValueOrigin
from services.resolver.gathering import Component
from services.resolver.problems import Problems, ProblemType
from services.resolver.request import PolicyFile

ISOLATION: Final = "microvm"
CAPABILITIES: Final = frozenset({"credentials", "network", "ports", "terminal", "volumes"})
"""What every machine of lns can do."""

_VERSION = re.compile(r"v?([0-9]{1,6})(?:\.([0-9]{1,6}))?(?:\.([0-9]{1,6}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The valid components of a bundle, by family; of broken ones nothing is here."""

    root: Component
    agents: tuple[Component, ...] = ()
    sandbox: Component | None = None
    policies: tuple[Component, ...] = ()
    mountable: tuple[Component, ...] = ()
    integrations: tuple[Component, ...] = ()
    workflow: Component | None = None
    is_sandbox_broken: bool = False


def sort_components(
    root: Component, wanted: Sequence[ComponentRef], components: Sequence[Component | None]
) -> Bundle:
    """Sorts fetched components by what they are to a bundle.

    Args:
        root: the bundle itself.
        wanted: the components that it names.
        components: what was fetched for each of them, None where that failed.
    """
    present = [component for component in components if component is not None]

    def of(*kinds: families.Family) -> tuple[Component, ...]:
        return tuple(component for component in present if component.family in kinds)

    return Bundle(
        root=root,
        agents=of(families.AGENT),
        sandbox=next(iter(of(families.SANDBOX)), None),
        policies=of(families.POLICY),
        mountable=of(*(one for one in families.FAMILIES if one.is_mountable)),
        integrations=of(families.INTEGRATION),
        workflow=next(iter(of(families.WORKFLOW)), None),
        is_sandbox_broken=any(
            one.family is families.SANDBOX and component is None
            for one, component in zip(wanted, components, strict=True)
        ),
    )


def without_namesakes(bundle: Bundle, problems: Problems) -> Bundle:
    """Notes agents, integrations, tools and knowledge that share a name with another of theirs.

    Returns the bundle with the first of each name alone, so that one mistake gives one problem.
    """
    seen: dict[tuple[str, str], Component] = {}

    def first_of(components: Sequence[Component]) -> tuple[Component, ...]:
        kept = []
        for component in components:
            key = (component.family.slug, component.artifact.name)
            first = seen.setdefault(key, component)
            if first is component:
                kept.append(component)
                continue
            problems.add(
                component.label,
                f"has the name {component.artifact.name!r} of {first.label}; names are unique",
                ProblemType.DUPLICATE,
            )
        return tuple(kept)

    return replace(
        bundle,
        agents=first_of(bundle.agents),
        integrations=first_of(bundle.integrations),
        mountable=first_of(bundle.mountable),
    )


def check_sandbox(sandbox: Component, problems: Problems, *, version: str) -> None:
    """Notes what a sandbox demands and this version of lns does not offer."""
    spec = SandboxSpec.of(sandbox.artifact.spec)
    if spec.isolation not in ("", ISOLATION):
        problems.add(
            sandbox.label,
            f"demands the isolation {spec.isolation!r}; lns offers {ISOLATION!r}",
            ProblemType.UNSUPPORTED,
        )
    unknown = sorted(set(spec.capabilities) - CAPABILITIES)
    if unknown:
        problems.add(
            sandbox.label,
            f"demands capabilities that lns {version} does not know: {', '.join(unknown)};"
            f" it has {', '.join(sorted(CAPABILITIES))}",
            ProblemType.UNSUPPORTED,
        )
    if spec.supervisor_version and _version(spec.supervisor_version) > _version(version):
        problems.add(
            sandbox.label,
            f"demands lns {spec.supervisor_version} or later and this is {version}; update lns",
            ProblemType.UNSUPPORTED,
        )


def plan_policy(
    bundle: Bundle | None, file: PolicyFile | None, problems: Problems
) -> tuple[Policy | None, tuple[ValueOrigin, ...]]:
    """Returns the policy of a run and its origin: the file's, else the bundle's merged ones."""
    if file is not None:
        try:
            policy = merge_policies([parse_policy_file(file.text, name=file.name)])
        except LnsError as error:
            problems.add_error(f"--policy {file.name}", error)
            return None, ()
        origin = ValueOrigin(path="policy", kind=OriginKind.FLAG, detail=f"--policy {file.name}")
        return policy, (origin,)
    if bundle is None or not bundle.policies:
        return None, ()
    try:
        policy = merge_policies(
            [
                policy_of_spec(component.artifact.spec, origin=component.fetched.pinned)
                for component in bundle.policies
            ],
            origins=[component.fetched.pinned for component in bundle.policies],
        )
    except LnsError as error:
        problems.add_error("policies", error)
        return None, ()
    detail = ", ".join(component.fetched.pinned for component in bundle.policies)
    return policy, (ValueOrigin(path="policy", kind=OriginKind.COMPONENT, detail=detail),)


def plan_integrations(bundle: Bundle) -> tuple[tuple[Integration, ...], tuple[ValueOrigin, ...]]:
    """Returns the integrations that a bundle brings, and their origins."""
    integrations = tuple(
        Integration(
            id=component.artifact.name,
            reference=component.fetched.pinned,
            manifest=component.fetched.manifest.descriptor,
            spec_json=canonical_json(component.artifact.spec).decode(),
        )
        for component in bundle.integrations
    )
    origins = tuple(
        ValueOrigin(path=f"integrations[{one.id}]", kind=OriginKind.COMPONENT, detail=one.reference)
        for one in integrations
    )
    return integrations, origins


def check_integrations(bundle: Bundle, policy: Policy | None, problems: Problems) -> list[str]:
    """Holds integrations that policies and tools name against those that the bundle brings.

    A digest beside a name is enforced: the bundle has to bring just that manifest. Returns warnings
    for tools whose integrations nobody permits.
    """
    brought = {component.artifact.name: component for component in bundle.integrations}
    warnings = []
    for component in (*bundle.policies, *bundle.mountable):
        for entry in _named_integrations(component):
            name = integration_id(entry["ref"])
            _check_digest(component, name, entry.get("digest", ""), brought.get(name), problems)
            permitted = policy.integrations if policy is not None else ()
            if component.family is families.TOOL and name not in (*brought, *permitted):
                warnings.append(
                    f"tool {component.artifact.name} requires the integration {name}, which neither"
                    " the bundle brings nor the policy names"
                )
    return warnings


def _named_integrations(component: Component) -> Sequence[dict[str, str]]:
    member = "requiredIntegrations" if component.family is families.TOOL else "integrations"
    entries: Sequence[dict[str, str]] = component.artifact.spec.get(member, ())
    return entries


def _check_digest(
    component: Component, name: str, digest: str, brought: Component | None, problems: Problems
) -> None:
    if not digest or (brought is not None and brought.fetched.root.digest == digest):
        return
    found = f"brings {brought.fetched.root.digest}" if brought is not None else "brings none"
    problems.add(
        component.label,
        f"demands the integration {name} as {digest}; the bundle {found}",
        DigestMismatch.reason,
    )


def _version(text: str) -> tuple[int, ...]:
    match = _VERSION.match(text)
    return tuple(int(part or 0) for part in match.groups()) if match is not None else (0, 0, 0)
