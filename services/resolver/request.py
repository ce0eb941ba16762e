"""What a caller asks of the resolver: flags and defaults, as they were written."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """A policy file: its name, for messages, and its text."""

    name: str
    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What the command line says; None stands for a flag that was not given."""

    argv: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    user: str | None = None
    workdir: str | None = None
    cpus: str | None = None
    memory: str | None = None
    disk: str | None = None
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    policy: PolicyFile | None = None
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    entrypoint: str | None = None
    usable_credentials: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Defaults of `lns config`; None stands for what is not configured."""

    cpus: str | None = None
    memory: str | None = None
    disk: str | None = None
