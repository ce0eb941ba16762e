"""Which integrations a run uses, and what its programs find of them. Pure."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.core.egress.hosts import Host, HostKind, is_below
from services.core.integrations.catalogue import Catalogue
from services.core.integrations.definitions import (
    CredentialUse,
    IntegrationDefinition,
    integration_of_spec,
)
from services.core.run_plan import RunPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveIntegration:
    """An integration that a run uses.

    Attributes:
        definition: the integration.
        credential: where its secret goes.
        variables: in which the workload finds the placeholder.
    """

    definition: IntegrationDefinition
    credential: CredentialUse
    variables: tuple[str, ...]

    @property
    def id(self) -> str:
        """The integration's id."""
        return self.definition.id

    def goes_to(self, host: Host) -> bool:
        """Returns whether its secret is sent to a host."""
        return host.kind is HostKind.NAME and any(
            is_below(str(host), domain) for domain in self.credential.domains
        )


def wanted_ids(plan: RunPlan, permitted: Iterable[str]) -> tuple[str, ...]:
    """Returns the ids of the integrations that a run uses: its policy's, bundle's and agent's."""
    needs = (need.name for need in plan.credentials)
    return tuple(dict.fromkeys((*permitted, *(one.id for one in plan.integrations), *needs)))


def run_catalogue(catalogue: Catalogue, plan: RunPlan) -> Catalogue:
    """Returns a catalogue with the integrations that a run's bundle brings.

    Raises:
        NameTaken: the bundle brings one under the id of another.
        ArtifactInvalid: the bundle brings one that cannot be used.
    """
    return catalogue.with_more(
        integration_of_spec(one.id, json.loads(one.spec_json), origin=one.reference)
        for one in plan.integrations
    )


def active_integrations(
    plan: RunPlan, permitted: Iterable[str], catalogue: Catalogue
) -> tuple[tuple[ActiveIntegration, ...], tuple[str, ...]]:
    """Returns the integrations that a run uses, and the ids that name none."""
    found: list[ActiveIntegration] = []
    unknown: list[str] = []
    for identifier in wanted_ids(plan, permitted):
        definition = catalogue.find(identifier)
        if definition is None:
            unknown.append(identifier)
        elif definition.credential is not None:
            asked = [need.env for need in plan.credentials if need.name == identifier]
            found.append(
                ActiveIntegration(
                    definition=definition,
                    credential=definition.credential,
                    variables=tuple(dict.fromkeys((definition.credential.env_var, *asked))),
                )
            )
    return tuple(found), tuple(unknown)


def placeholder_environment(active: Sequence[ActiveIntegration]) -> dict[str, str]:
    """Returns the variables in which a workload finds placeholders."""
    return {variable: one.credential.placeholder for one in active for variable in one.variables}
