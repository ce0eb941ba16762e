"""The specs of validated artifacts as values: what the resolver reads out of documents."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.core.artifacts import families
from services.core.artifacts.families import Family
from services.core.run_plan import CredentialNeed, PortMapping, VolumeKind, VolumeMount

SHELL: Final = ("/bin/sh", "-c")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSpec:
    """An agent's spec; None stands for what the document does not say.

    Attributes:
        image: reference of its image.
        argv: its command: a text becomes a line for `/bin/sh -c`.
        user: `user[:group]`.
        workdir: absolute.
        env: names and values.
        ports: what it publishes, on the host's loopback.
        volumes: named volumes.
        credentials: what it needs.
    """

    image: str | None
    argv: tuple[str, ...] | None
    user: str | None
    workdir: str | None
    env: Mapping[str, str]
    ports: tuple[PortMapping, ...]
    volumes: tuple[VolumeMount, ...]
    credentials: tuple[CredentialNeed, ...]

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> "AgentSpec":
        """Reads the spec of a validated document."""
        return cls(
            image=spec.get("image"),
            argv=_argv(spec.get("command")),
            user=None if "user" not in spec else str(spec["user"]),
            workdir=spec.get("workdir"),
            env=spec.get("env", {}),
            ports=tuple(
                PortMapping(
                    host_port=port["host"],
                    container_port=port["container"],
                    protocol=port.get("protocol", "tcp"),
                )
                for port in spec.get("ports", ())
            ),
            volumes=tuple(
                VolumeMount(
                    kind=VolumeKind.NAMED,
                    source=volume["name"],
                    target=volume["target"],
                    read_only=volume.get("readOnly", False),
                )
                for volume in spec.get("volumes", ())
            ),
            credentials=tuple(
                CredentialNeed(name=need["name"], env=need["env"])
                for need in spec.get("credentials", ())
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """A sandbox's spec; None or empty stands for what the document does not say."""

    cpu: str | float | None
    memory: str | float | None
    base_image: str | None
    isolation: str
    capabilities: tuple[str, ...]
    supervisor_version: str

    @classmethod
    def of(cls, spec: Mapping[str, Any]) -> "SandboxSpec":
        """Reads the spec of a validated document."""
        resources: Mapping[str, Any] = spec.get("resources", {})
        return cls(
            cpu=resources.get("cpu"),
            memory=resources.get("memory"),
            base_image=spec.get("baseImage"),
            isolation=spec.get("isolation", ""),
            capabilities=tuple(spec.get("capabilities", ())),
            supervisor_version=spec.get("supervisorVersion", ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentRef:
    """One component that a bundle names.

    Attributes:
        family: what it has to be.
        place: where the bundle names it: `tools[1]`, `sandbox`.
        ref: its reference as written, maybe without a host.
        digest: the digest that is enforced, or empty.
    """

    family: Family
    place: str
    ref: str
    digest: str = ""


_COMPONENT_FAMILIES: Final = {
    "agents": families.AGENT,
    "agent": families.AGENT,
    "sandbox": families.SANDBOX,
    "policies": families.POLICY,
    "model": families.MODEL,
    "tools": families.TOOL,
    "knowledge": families.KNOWLEDGE,
    "filesets": families.FILESET,
    "integrations": families.INTEGRATION,
    "workflow": families.WORKFLOW,
}
"""The components of a bundle, in the order in which messages name them."""


def bundle_components(spec: Mapping[str, Any]) -> tuple[ComponentRef, ...]:
    """Returns the components of a validated bundle's spec, in the order of the contract."""
    return tuple(_components(spec["components"]))


def _components(components: Mapping[str, Any]) -> Iterator[ComponentRef]:
    for name, family in _COMPONENT_FAMILIES.items():
        value = components.get(name)
        entries = value if isinstance(value, list) else [] if value is None else [value]
        for index, entry in enumerate(entries):
            place = f"{name}[{index}]" if isinstance(value, list) else name
            yield ComponentRef(
                family=family, place=place, ref=entry["ref"], digest=entry.get("digest", "")
            )


def _argv(command: str | list[str] | None) -> tuple[str, ...] | None:
    if command is None:
        return None
    return (*SHELL, command) if isinstance(command, str) else tuple(command)
