"""Messages of the resolver's proto ↔ values."""

from collections.abc import Iterable
from types import MappingProxyType

from lns.resolver.v1 import resolver_service_pb2 as pb

from services.chassis.messages import parse_platform
from services.chassis.run_plan_messages import format_pinned_manifest, format_run_plan
from services.core.platforms import Platform
from services.core.run_plan import RunPlan
from services.resolver.lock import Lock, LockDifference, format_lock
from services.resolver.request import Defaults, Overrides, PolicyFile


def parse_overrides(message: pb.Overrides) -> Overrides:
    """Returns the flags in a message, as they were written."""
    return Overrides(
        argv=tuple(message.argv),
        env=tuple((entry.name, entry.value) for entry in message.env),
        user=message.user if message.HasField("user") else None,
        workdir=message.workdir if message.HasField("workdir") else None,
        cpus=message.cpus if message.HasField("cpus") else None,
        memory=message.memory if message.HasField("memory") else None,
        disk=message.disk if message.HasField("disk") else None,
        ports=tuple(message.ports),
        volumes=tuple(message.volumes),
        mounts=tuple(message.mounts),
        policy=PolicyFile(name=message.policy.name or "policy", text=message.policy.text)
        if message.HasField("policy")
        else None,
        name=message.name if message.HasField("name") else None,
        labels=MappingProxyType(dict(message.labels)),
        entrypoint=message.entrypoint if message.HasField("entrypoint") else None,
        usable_credentials=frozenset(message.usable_credentials),
    )


def parse_defaults(message: pb.Defaults) -> Defaults:
    """Returns the defaults in a message."""
    return Defaults(
        cpus=message.cpus if message.HasField("cpus") else None,
        memory=message.memory if message.HasField("memory") else None,
        disk=message.disk if message.HasField("disk") else None,
    )


def parse_wanted_platform(
    message: pb.ResolveRequest | pb.LockRequest,
) -> Platform | None:
    """Returns the platform of a request, or None where it names none.

    Raises:
        RequestInvalid: it is incomplete.
    """
    if not message.HasField("platform"):
        return None
    asked = parse_platform(message.platform)
    return Platform.of(asked.os, asked.architecture, asked.variant)


def format_plans(plans: Iterable[RunPlan]) -> pb.ResolveResponse:
    """Returns the answer of Resolve."""
    return pb.ResolveResponse(plans=[format_run_plan(plan) for plan in plans])


def format_locked(lock: Lock) -> pb.LockResponse:
    """Returns the answer of Lock."""
    return pb.LockResponse(
        lock=format_lock(lock), closure=[format_pinned_manifest(one) for one in lock.manifests]
    )


def format_differences(differences: Iterable[LockDifference]) -> pb.CheckLockResponse:
    """Returns the answer of CheckLock."""
    return pb.CheckLockResponse(
        differences=[
            pb.LockDifference(
                component=one.component,
                locked_digest=one.locked_digest,
                current_digest=one.current_digest,
            )
            for one in differences
        ]
    )
