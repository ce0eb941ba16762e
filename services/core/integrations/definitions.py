"""One integration as a value, read from the `spec` of a validated artifact."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from services.core.budgets.metering import Metering, metering_of_spec
from services.core.errors import ArtifactInvalid, Violation
from services.core.route_match import RouteMatch, normalize_name
from services.core.run_plan import PolicyRule

_WILDCARD_LABELS: Final = 2
"""Labels that a wildcard has at least behind its `*.`: `*.com` would catch every host."""


class InjectionKind(StrEnum):
    """Where in a request a secret takes its placeholder's place."""

    BEARER = "bearer_header"
    TOKEN = "token_header"  # noqa: S105 - a word of the authorization scheme
    API_KEY = "api_key_header"
    BASIC = "basic_x_access_token"
    URI = "uri_placeholder"


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectionRule:
    """One place of requests in which the placeholder is replaced.

    Attributes:
        kind: which place.
        domain: a host or `*.host`, in lower case.
        header: the header's name for `API_KEY`, empty otherwise.
    """

    kind: InjectionKind
    domain: str
    header: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialUse:
    """What the workload holds instead of the secret, and where the secret takes its place."""

    env_var: str
    placeholder: str
    injections: tuple[InjectionRule, ...]

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that the secret is sent to, each once."""
        return tuple(dict.fromkeys(rule.domain for rule in self.injections))


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """A service's device authorization (RFC 8628)."""

    device_authorization_endpoint: str
    token_endpoint: str
    client_id: str
    scopes: tuple[str, ...] = ()
    audience: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegrationRoute:
    """One host of the service, and the requests that it is needed for; all without rules."""

    match: str
    description: str = ""
    rules: tuple[PolicyRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegrationDefinition:
    """An integration.

    Attributes:
        id: its id.
        title: what it is for, one line.
        routes: hosts of the service.
        credential: what the workload holds; None where requests carry none.
        oauth: how a user authorizes it, or None for a credential that is stored.
        origin: where the definition comes from: `lns`, a file, or a reference.
        metering: how its use is counted; None where replies do not say it.
    """

    id: str
    title: str
    routes: tuple[IntegrationRoute, ...]
    credential: CredentialUse | None
    oauth: OAuthClient | None
    origin: str
    metering: Metering | None = None

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that the secret is sent to."""
        return self.credential.domains if self.credential is not None else ()


def integration_of_spec(
    identifier: str, spec: Mapping[str, Any], *, origin: str, title: str = ""
) -> IntegrationDefinition:
    """Returns the integration of a validated `spec`.

    Raises:
        ArtifactInvalid: its secret would be sent to hosts that are not the service's.
    """
    definition = IntegrationDefinition(
        id=identifier,
        title=title,
        routes=tuple(_route(route) for route in spec["routes"]),
        credential=_credential(spec.get("credential")),
        oauth=_oauth(spec.get("oauth")),
        origin=origin,
        metering=metering_of_spec(spec.get("usage")),
    )
    found = tuple(_problems(definition))
    if found:
        raise ArtifactInvalid(
            f"integration {identifier} cannot be used: {found[0].subject} {found[0].description}",
            hint="name the hosts of the service exactly",
            violations=found,
        )
    return definition


def is_within(domain: str, others: tuple[str, ...]) -> bool:
    """Says whether every host of a domain is one of some domains' (each a host or `*.host`)."""
    return any(_covers(other, domain) for other in others)


def _covers(wide: str, narrow: str) -> bool:
    if wide == narrow:
        return True
    return wide.startswith("*.") and narrow.removeprefix("*.").endswith(wide.removeprefix("*"))


def _problems(definition: IntegrationDefinition) -> Iterator[Violation]:
    matches = [RouteMatch.parse(route.match) for route in definition.routes]
    for index, match in enumerate(matches):
        if match.is_wildcard and match.name.count(".") + 1 < _WILDCARD_LABELS:
            yield Violation(
                subject=f"$.spec.routes[{index}].match",
                description=f"{match} would catch the hosts of everybody",
                type="RULE",
            )
    hosts = tuple(
        f"*.{match.name}" if match.is_wildcard else match.name for match in matches if match.name
    )
    rules = definition.credential.injections if definition.credential is not None else ()
    for index, rule in enumerate(rules):
        if not is_within(rule.domain, hosts):
            yield Violation(
                subject=f"$.spec.credential.injections[{index}].domain",
                description=f"{rule.domain} is not a host of its routes",
                type="RULE",
            )


def _route(route: Mapping[str, Any]) -> IntegrationRoute:
    return IntegrationRoute(
        match=str(RouteMatch.parse(route["match"])),
        description=route.get("description", ""),
        rules=tuple(
            PolicyRule(method=rule["method"], path=rule["path"]) for rule in route.get("rules", ())
        ),
    )


def _credential(spec: Mapping[str, Any] | None) -> CredentialUse | None:
    if spec is None:
        return None
    return CredentialUse(
        env_var=spec["envVar"],
        placeholder=spec["placeholder"],
        injections=tuple(
            InjectionRule(
                kind=InjectionKind(entry["kind"]),
                domain=normalize_name(entry["domain"]),
                header=entry.get("header", ""),
            )
            for entry in spec["injections"]
        ),
    )


def _oauth(spec: Mapping[str, Any] | None) -> OAuthClient | None:
    if spec is None:
        return None
    return OAuthClient(
        device_authorization_endpoint=spec["deviceAuthorizationEndpoint"],
        token_endpoint=spec["tokenEndpoint"],
        client_id=spec["clientId"],
        scopes=tuple(spec.get("scopes", ())),
        audience=spec.get("audience", ""),
    )
