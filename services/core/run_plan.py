"""The run plan as a value: everything that a run is, concrete and pinned.

Mirrors `lns.types.v1.RunPlan`, whose comments are its specification; `services.chassis.messages`
converts between the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from services.core.budgets.limits import BudgetLimit
from services.core.descriptor import Descriptor
from services.core.platforms import Platform

PLAN_SCHEMA_VERSION: Final = 1

HEALTHCHECK_MOST: Final = 86_400.0
"""The longest time of a health check, in seconds."""


class Verdict(StrEnum):
    """What a policy says of a connection."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"


class PlanKind(StrEnum):
    """What a plan was resolved from."""

    BUNDLE = "bundle"
    AGENT = "agent"
    IMAGE = "image"
    IMAGELESS = "imageless"


class OriginKind(StrEnum):
    """Where a value of a plan comes from."""

    FLAG = "flag"
    BUNDLE = "bundle"
    AGENT = "agent"
    SANDBOX = "sandbox"
    IMAGE = "image"
    CONFIG = "config"
    BUILT_IN = "built-in"
    COMPONENT = "component"


class VolumeKind(StrEnum):
    """What a volume mount mounts."""

    NAMED = "named"
    BIND = "bind"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSource:
    """What a plan was resolved from; reference and digest are empty for an imageless run."""

    kind: PlanKind
    reference: str = ""
    digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedImage:
    """An image pinned to the manifest of one platform."""

    reference: str
    manifest: Descriptor
    platform: Platform
    requested: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Size of a microVM; `disk_mib` 0 takes the runner's default."""

    vcpus: int
    cpu_millis: int
    memory_mib: int
    disk_mib: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMapping:
    """A port of the guest's loopback published on the host; host port 0 picks a free one."""

    host_ip: str = "127.0.0.1"
    host_port: int
    container_port: int
    protocol: str = "tcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeMount:
    """A named volume, or a bind of an absolute path of the host.

    A bind hides what looks like a secret at its top unless `keep_secrets` is set.
    """

    kind: VolumeKind
    source: str
    target: str
    read_only: bool = False
    keep_secrets: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactMount:
    """An application-layer artifact mounted into the file system."""

    family: str
    name: str
    reference: str
    manifest: Descriptor
    path: str
    read_only: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
    """One HTTP rule of a route."""

    method: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRoute:
    """One route of a policy."""

    match: str
    verdict: Verdict
    description: str = ""
    rules: tuple[PolicyRule, ...] = ()
    origin: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A flat policy: the first route that matches decides, and the default where none does.

    A default that is None is not written down: it means `ask`, and counts as no opinion where
    several policies are merged. The policy of a plan always has one.
    """

    default_verdict: Verdict | None = None
    routes: tuple[PolicyRoute, ...] = ()
    integrations: tuple[str, ...] = ()
    budgets: tuple[BudgetLimit, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Integration:
    """An integration that a bundle brings; `spec_json` is the artifact's `spec`."""

    id: str
    reference: str
    manifest: Descriptor
    spec_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialNeed:
    """A credential that a workload needs, by the id of its integration."""

    name: str
    env: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueOrigin:
    """Where one value of a plan comes from; `path` is its path in the plan."""

    path: str
    kind: OriginKind
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedManifest:
    """A manifest that a plan stands on, and what it is to the plan."""

    role: str
    requested: str
    repository: str
    manifest: Descriptor


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthcheck:
    """A command that says whether a workload is well, with Docker's defaults; times in seconds."""

    argv: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    start_interval: float = 5.0
    retries: int = 3

    def is_valid(self) -> bool:
        """Says whether the times are positive and at most a day; only `start_period` may be 0."""
        times = (self.interval, self.timeout, self.start_interval)
        return (
            bool(self.argv)
            and all(0 < time <= HEALTHCHECK_MOST for time in times)
            and 0 <= self.start_period <= HEALTHCHECK_MOST
            and self.retries > 0
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """One run, fully resolved: nothing in it needs a tag to be looked up again.

    `env` keeps its entries sorted by name. `closure` has every manifest that the plan stands on,
    root first.
    """

    name: str
    source: PlanSource
    argv: tuple[str, ...]
    resources: Resources
    image: PinnedImage | None = None
    env: tuple[tuple[str, str], ...] = ()
    user: str = ""
    workdir: str = "/"
    ports: tuple[PortMapping, ...] = ()
    volumes: tuple[VolumeMount, ...] = ()
    mounts: tuple[ArtifactMount, ...] = ()
    policy: Policy | None = None
    integrations: tuple[Integration, ...] = ()
    credentials: tuple[CredentialNeed, ...] = ()
    warnings: tuple[str, ...] = ()
    origins: tuple[ValueOrigin, ...] = ()
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    group: str = ""
    member: str = ""
    closure: tuple[PinnedManifest, ...] = ()
    has_workflow: bool = False
    stop_signal: str = ""
    image_volumes: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None
    exposed_ports: tuple[str, ...] = ()
    schema_version: int = PLAN_SCHEMA_VERSION
