"""Values that several services share ↔ messages of `lns.types.v1`.

Descriptors and platforms, ports, environments and policies; `run_plan_messages` has the plan.

`format_x` makes a message of a value, `parse_x` a value of a message. Messages come from outside:
parsing checks, and names the field at fault.
"""

from collections.abc import Iterable
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar

from lns.types.v1 import descriptor_pb2, run_plan_pb2

from services.core import run_plan
from services.core.budgets.limits import BudgetLimit, parse_limits
from services.core.descriptor import Descriptor
from services.core.digest import Digest
from services.core.errors import DigestInvalid, RequestInvalid, Violation
from services.core.platforms import Platform
from services.core.run_plan import Verdict

MAX_PORT = 65535

MAX_CONTENT_BYTES = 1 << 53
"""The largest size that JSON numbers hold exactly, as for descriptors in manifests."""

Word = TypeVar("Word", bound=StrEnum)


def invalid(field: str, description: str) -> RequestInvalid:
    """Returns the error for one field of a request that cannot be used."""
    return RequestInvalid(
        f"{field} {description}",
        violations=[Violation(subject=field, description=description, type="FIELD")],
    )


def parse_digest(text: str, field: str = "digest") -> Digest:
    """Returns the digest in a field.

    Raises:
        DigestInvalid: it is not one; the violation names the field.
    """
    try:
        return Digest(text)
    except DigestInvalid as error:
        raise DigestInvalid(
            f"{field}: {error.message}",
            hint=error.hint,
            metadata=error.metadata,
            violations=[Violation(subject=field, description=error.message, type="FIELD")],
        ) from error


def format_platform(value: Platform) -> descriptor_pb2.Platform:
    """Returns the message of a platform."""
    return descriptor_pb2.Platform(
        os=value.os, architecture=value.architecture, variant=value.variant
    )


def parse_platform(message: descriptor_pb2.Platform, field: str = "platform") -> Platform:
    """Returns the platform of a message.

    Raises:
        RequestInvalid: operating system or architecture is empty.
    """
    if not message.os or not message.architecture:
        raise invalid(field, "needs `os` and `architecture`")
    return Platform.of(message.os, message.architecture, message.variant)


def format_descriptor(value: Descriptor) -> descriptor_pb2.Descriptor:
    """Returns the message of a descriptor."""
    return descriptor_pb2.Descriptor(
        media_type=value.media_type,
        digest=value.digest,
        size_bytes=value.size,
        artifact_type=value.artifact_type,
        annotations=value.annotations,
        platform=None if value.platform is None else format_platform(value.platform),
    )


def parse_descriptor(message: descriptor_pb2.Descriptor, field: str = "descriptor") -> Descriptor:
    """Returns the descriptor of a message.

    Raises:
        DigestInvalid: its digest is not one.
        RequestInvalid: its size is negative or absurd.
    """
    if not 0 <= message.size_bytes <= MAX_CONTENT_BYTES:
        raise invalid(f"{field}.size_bytes", f"cannot be {message.size_bytes}")
    platform = None
    if message.HasField("platform"):
        # The entry of an index may say nothing of its architecture.
        platform = Platform(
            os=message.platform.os,
            architecture=message.platform.architecture,
            variant=message.platform.variant,
        )
    return Descriptor(
        media_type=message.media_type,
        digest=parse_digest(message.digest, f"{field}.digest"),
        size=message.size_bytes,
        artifact_type=message.artifact_type,
        annotations=MappingProxyType(dict(message.annotations)),
        platform=platform,
    )


def format_port(value: run_plan.PortMapping) -> run_plan_pb2.PortMapping:
    """Returns the message of a published port."""
    return run_plan_pb2.PortMapping(
        host_ip=value.host_ip,
        host_port=value.host_port,
        container_port=value.container_port,
        protocol=value.protocol,
    )


def parse_port(message: run_plan_pb2.PortMapping, field: str = "port") -> run_plan.PortMapping:
    """Returns the published port of a message; an empty address is 127.0.0.1.

    Raises:
        RequestInvalid: a port is out of range, or the protocol is not `tcp`.
    """
    if not 0 <= message.host_port <= MAX_PORT:
        raise invalid(f"{field}.host_port", f"cannot be {message.host_port}")
    if not 1 <= message.container_port <= MAX_PORT:
        raise invalid(f"{field}.container_port", f"cannot be {message.container_port}")
    if message.protocol not in {"", "tcp"}:
        raise invalid(f"{field}.protocol", "can only be tcp")
    return run_plan.PortMapping(
        host_ip=message.host_ip or "127.0.0.1",
        host_port=message.host_port,
        container_port=message.container_port,
        protocol="tcp",
    )


def parse_env(
    entries: Iterable[run_plan_pb2.EnvVar], field: str = "env"
) -> tuple[tuple[str, str], ...]:
    """Returns the environment of a message, sorted by name.

    Raises:
        RequestInvalid: a name is empty, has a `=` or occurs twice, or something has a NUL.
    """
    env: dict[str, str] = {}
    for index, entry in enumerate(entries):
        if not entry.name or "=" in entry.name or "\0" in entry.name + entry.value:
            raise invalid(f"{field}[{index}]", f"{entry.name!r} cannot be an environment variable")
        if entry.name in env:
            raise invalid(f"{field}[{index}]", f"{entry.name} occurs twice")
        env[entry.name] = entry.value
    return tuple(sorted(env.items()))


def format_policy(value: run_plan.Policy) -> run_plan_pb2.Policy:
    """Returns the message of a policy."""
    return run_plan_pb2.Policy(
        default_verdict=value.default_verdict or "",
        routes=[
            run_plan_pb2.PolicyRoute(
                match=route.match,
                verdict=route.verdict,
                description=route.description,
                rules=[
                    run_plan_pb2.PolicyRule(method=rule.method, path=rule.path)
                    for rule in route.rules
                ],
                origin=route.origin,
            )
            for route in value.routes
        ],
        integrations=value.integrations,
        budgets=[format_budget(limit) for limit in value.budgets],
    )


def parse_policy(message: run_plan_pb2.Policy, field: str = "policy") -> run_plan.Policy:
    """Returns the policy of a message.

    Raises:
        RequestInvalid: a verdict is not one.
    """
    return run_plan.Policy(
        default_verdict=(
            parse_word(Verdict, message.default_verdict, f"{field}.default_verdict")
            if message.default_verdict
            else None
        ),
        routes=tuple(
            run_plan.PolicyRoute(
                match=route.match,
                verdict=parse_word(Verdict, route.verdict, f"{field}.routes[{index}].verdict"),
                description=route.description,
                rules=tuple(
                    run_plan.PolicyRule(method=rule.method, path=rule.path) for rule in route.rules
                ),
                origin=route.origin,
            )
            for index, route in enumerate(message.routes)
        ),
        integrations=tuple(message.integrations),
        budgets=parse_budgets(message.budgets),
    )


def format_budget(value: BudgetLimit) -> run_plan_pb2.BudgetLimit:
    """Returns the message of a budget's limit."""
    return run_plan_pb2.BudgetLimit(
        integration=value.integration, limit=value.text, origin=value.origin
    )


def parse_budgets(messages: Iterable[run_plan_pb2.BudgetLimit]) -> tuple[BudgetLimit, ...]:
    """Returns the limits of messages.

    Raises:
        RequestInvalid: one is not a limit.
    """
    return tuple(
        limit
        for message in messages
        for limit in parse_limits(message.integration, message.limit, origin=message.origin)
    )


def absolute_path(path: str, field: str) -> str:
    """Returns `path`.

    Raises:
        RequestInvalid: it is relative, or has a `..` or a NUL.
    """
    if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise invalid(field, f"{path!r} is not an absolute path without `..`")
    return path


def parse_word(words: type[Word], text: str, field: str) -> Word:
    """Returns the member of an enumeration that a text names.

    Raises:
        RequestInvalid: it names none.
    """
    try:
        return words(text)
    except ValueError:
        raise invalid(field, f"{text!r} is not one of " + ", ".join(words)) from None
