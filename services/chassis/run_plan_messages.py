"""The run plan ↔ `lns.types.v1.RunPlan`.

A plan that arrives is checked for what its proto promises (versions, ranges, absolute paths, known
names), so that whoever boots it need not doubt its form. `messages` explains the names.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from lns.types.v1 import run_plan_pb2 as pb

from services.chassis import messages
from services.chassis.messages import invalid
from services.core import run_plan as core
from services.core.run_plan import OriginKind, PlanKind, VolumeKind

MIN_MEMORY_MIB = 64

_ORIGINS: Mapping[OriginKind, pb.OriginKind.ValueType] = {
    OriginKind.FLAG: pb.ORIGIN_KIND_FLAG,
    OriginKind.BUNDLE: pb.ORIGIN_KIND_BUNDLE,
    OriginKind.AGENT: pb.ORIGIN_KIND_AGENT,
    OriginKind.SANDBOX: pb.ORIGIN_KIND_SANDBOX,
    OriginKind.IMAGE: pb.ORIGIN_KIND_IMAGE,
    OriginKind.CONFIG: pb.ORIGIN_KIND_CONFIG,
    OriginKind.BUILT_IN: pb.ORIGIN_KIND_BUILT_IN,
    OriginKind.COMPONENT: pb.ORIGIN_KIND_COMPONENT,
}
_ORIGIN_KINDS = {number: kind for kind, number in _ORIGINS.items()}
_VOLUMES: Mapping[VolumeKind, pb.VolumeMount.Kind.ValueType] = {
    VolumeKind.NAMED: pb.VolumeMount.KIND_NAMED,
    VolumeKind.BIND: pb.VolumeMount.KIND_BIND,
}
_VOLUME_KINDS = {number: kind for kind, number in _VOLUMES.items()}


def format_run_plan(value: core.RunPlan) -> pb.RunPlan:
    """Returns the message of a plan."""
    return pb.RunPlan(
        schema_version=value.schema_version,
        name=value.name,
        source=pb.PlanSource(
            reference=value.source.reference, digest=value.source.digest, kind=value.source.kind
        ),
        image=None if value.image is None else _format_image(value.image),
        argv=value.argv,
        env=[pb.EnvVar(name=name, value=text) for name, text in value.env],
        user=value.user,
        workdir=value.workdir,
        resources=pb.Resources(
            vcpus=value.resources.vcpus,
            cpu_millis=value.resources.cpu_millis,
            memory_mib=value.resources.memory_mib,
            disk_mib=value.resources.disk_mib,
        ),
        ports=[messages.format_port(one) for one in value.ports],
        volumes=[
            pb.VolumeMount(
                kind=_VOLUMES[one.kind],
                source=one.source,
                target=one.target,
                read_only=one.read_only,
                keep_secrets=one.keep_secrets,
            )
            for one in value.volumes
        ],
        mounts=[_format_mount(one) for one in value.mounts],
        policy=None if value.policy is None else messages.format_policy(value.policy),
        integrations=[_format_integration(one) for one in value.integrations],
        credentials=[pb.CredentialNeed(name=one.name, env=one.env) for one in value.credentials],
        warnings=value.warnings,
        origins=[
            pb.ValueOrigin(path=one.path, kind=_ORIGINS[one.kind], detail=one.detail)
            for one in value.origins
        ],
        labels=value.labels,
        group=value.group,
        member=value.member,
        closure=[format_pinned_manifest(one) for one in value.closure],
        has_workflow=value.has_workflow,
        stop_signal=value.stop_signal,
        image_volumes=value.image_volumes,
        healthcheck=(None if value.healthcheck is None else _format_healthcheck(value.healthcheck)),
        exposed_ports=value.exposed_ports,
    )


def parse_run_plan(message: pb.RunPlan, field: str = "plan") -> core.RunPlan:
    """Returns the plan of a message.

    Raises:
        RequestInvalid: a value is missing or outside what `lns.types.v1.RunPlan` permits.
        DigestInvalid: a digest is not one.
    """
    if message.schema_version != core.PLAN_SCHEMA_VERSION:
        raise invalid(
            f"{field}.schema_version",
            f"is {message.schema_version}; this version of lns knows {core.PLAN_SCHEMA_VERSION}",
        )
    if not message.argv:
        raise invalid(f"{field}.argv", "is empty")
    return core.RunPlan(
        schema_version=message.schema_version,
        name=message.name,
        source=_parse_source(message.source, f"{field}.source"),
        image=_parse_image(message.image, f"{field}.image") if message.HasField("image") else None,
        argv=tuple(message.argv),
        env=messages.parse_env(message.env, f"{field}.env"),
        user=message.user,
        workdir=messages.absolute_path(message.workdir, f"{field}.workdir"),
        resources=_parse_resources(message.resources, f"{field}.resources"),
        ports=tuple(
            messages.parse_port(one, f"{field}.ports[{i}]") for i, one in enumerate(message.ports)
        ),
        volumes=_parse_volumes(message.volumes, f"{field}.volumes"),
        mounts=tuple(
            _parse_mount(one, f"{field}.mounts[{i}]") for i, one in enumerate(message.mounts)
        ),
        policy=(
            messages.parse_policy(message.policy, f"{field}.policy")
            if message.HasField("policy")
            else None
        ),
        integrations=tuple(
            _parse_integration(one, f"{field}.integrations[{i}]")
            for i, one in enumerate(message.integrations)
        ),
        credentials=tuple(
            core.CredentialNeed(name=one.name, env=one.env) for one in message.credentials
        ),
        warnings=tuple(message.warnings),
        origins=_parse_origins(message.origins, f"{field}.origins"),
        labels=MappingProxyType(dict(message.labels)),
        group=message.group,
        member=message.member,
        closure=_parse_closure(message.closure, f"{field}.closure"),
        has_workflow=message.has_workflow,
        stop_signal=message.stop_signal,
        image_volumes=_parse_paths(message.image_volumes, f"{field}.image_volumes"),
        healthcheck=_parse_healthcheck(message, f"{field}.healthcheck"),
        exposed_ports=tuple(message.exposed_ports),
    )


def format_pinned_manifest(value: core.PinnedManifest) -> pb.PinnedManifest:
    """Returns the message of a manifest that a plan stands on."""
    return pb.PinnedManifest(
        role=value.role,
        requested=value.requested,
        repository=value.repository,
        manifest=messages.format_descriptor(value.manifest),
    )


def parse_pinned_manifest(message: pb.PinnedManifest, field: str) -> core.PinnedManifest:
    """Returns the manifest of a message that a plan stands on.

    Raises:
        RequestInvalid, DigestInvalid: its descriptor is not one.
    """
    return core.PinnedManifest(
        role=message.role,
        requested=message.requested,
        repository=message.repository,
        manifest=messages.parse_descriptor(message.manifest, f"{field}.manifest"),
    )


def _format_healthcheck(value: core.Healthcheck) -> pb.Healthcheck:
    message = pb.Healthcheck(argv=value.argv, retries=value.retries)
    message.interval.FromNanoseconds(round(value.interval * 1e9))
    message.timeout.FromNanoseconds(round(value.timeout * 1e9))
    message.start_period.FromNanoseconds(round(value.start_period * 1e9))
    message.start_interval.FromNanoseconds(round(value.start_interval * 1e9))
    return message


def _parse_healthcheck(plan: pb.RunPlan, field: str) -> core.Healthcheck | None:
    if not plan.HasField("healthcheck"):
        return None
    message = plan.healthcheck
    value = core.Healthcheck(
        argv=tuple(message.argv),
        interval=message.interval.ToNanoseconds() / 1e9,
        timeout=message.timeout.ToNanoseconds() / 1e9,
        start_period=message.start_period.ToNanoseconds() / 1e9,
        start_interval=message.start_interval.ToNanoseconds() / 1e9,
        retries=message.retries,
    )
    if not value.is_valid():
        raise invalid(field, "needs a command, times up to a day and at least 1 retry")
    return value


def _format_image(value: core.PinnedImage) -> pb.PinnedImage:
    return pb.PinnedImage(
        reference=value.reference,
        manifest=messages.format_descriptor(value.manifest),
        platform=messages.format_platform(value.platform),
        requested=value.requested,
    )


def _parse_image(message: pb.PinnedImage, field: str) -> core.PinnedImage:
    return core.PinnedImage(
        reference=message.reference,
        manifest=messages.parse_descriptor(message.manifest, f"{field}.manifest"),
        platform=messages.parse_platform(message.platform, f"{field}.platform"),
        requested=message.requested,
    )


def _parse_source(message: pb.PlanSource, field: str) -> core.PlanSource:
    if message.digest:
        messages.parse_digest(message.digest, f"{field}.digest")
    return core.PlanSource(
        kind=messages.parse_word(PlanKind, message.kind, f"{field}.kind"),
        reference=message.reference,
        digest=message.digest,
    )


def _parse_resources(message: pb.Resources, field: str) -> core.Resources:
    if message.vcpus < 1:
        raise invalid(f"{field}.vcpus", "must be at least 1")
    if message.cpu_millis < 1:
        raise invalid(f"{field}.cpu_millis", "must be at least 1")
    if message.memory_mib < MIN_MEMORY_MIB:
        raise invalid(f"{field}.memory_mib", f"must be at least {MIN_MEMORY_MIB}")
    if message.disk_mib < 0:
        raise invalid(f"{field}.disk_mib", "must not be negative")
    return core.Resources(
        vcpus=message.vcpus,
        cpu_millis=message.cpu_millis,
        memory_mib=message.memory_mib,
        disk_mib=message.disk_mib,
    )


def _parse_paths(paths: Iterable[str], field: str) -> tuple[str, ...]:
    return tuple(messages.absolute_path(one, f"{field}[{i}]") for i, one in enumerate(paths))


def _parse_closure(
    closure: Iterable[pb.PinnedManifest], field: str
) -> tuple[core.PinnedManifest, ...]:
    return tuple(parse_pinned_manifest(one, f"{field}[{i}]") for i, one in enumerate(closure))


def _parse_volumes(volumes: Iterable[pb.VolumeMount], field: str) -> tuple[core.VolumeMount, ...]:
    return tuple(_parse_volume(one, f"{field}[{i}]") for i, one in enumerate(volumes))


def _parse_origins(origins: Iterable[pb.ValueOrigin], field: str) -> tuple[core.ValueOrigin, ...]:
    return tuple(_parse_origin(one, f"{field}[{i}]") for i, one in enumerate(origins))


def _parse_volume(message: pb.VolumeMount, field: str) -> core.VolumeMount:
    if message.kind not in _VOLUME_KINDS:
        raise invalid(f"{field}.kind", "must be KIND_NAMED or KIND_BIND")
    kind = _VOLUME_KINDS[message.kind]
    if kind is VolumeKind.BIND:
        messages.absolute_path(message.source, f"{field}.source")
    elif not message.source:
        raise invalid(f"{field}.source", "is empty")
    return core.VolumeMount(
        kind=kind,
        source=message.source,
        target=messages.absolute_path(message.target, f"{field}.target"),
        read_only=message.read_only,
        keep_secrets=message.keep_secrets,
    )


def _format_mount(value: core.ArtifactMount) -> pb.ArtifactMount:
    return pb.ArtifactMount(
        family=value.family,
        name=value.name,
        reference=value.reference,
        manifest=messages.format_descriptor(value.manifest),
        path=value.path,
        read_only=value.read_only,
    )


def _parse_mount(message: pb.ArtifactMount, field: str) -> core.ArtifactMount:
    return core.ArtifactMount(
        family=message.family,
        name=message.name,
        reference=message.reference,
        manifest=messages.parse_descriptor(message.manifest, f"{field}.manifest"),
        path=messages.absolute_path(message.path, f"{field}.path"),
        read_only=message.read_only,
    )


def _format_integration(value: core.Integration) -> pb.Integration:
    return pb.Integration(
        id=value.id,
        reference=value.reference,
        manifest=messages.format_descriptor(value.manifest),
        spec_json=value.spec_json,
    )


def _parse_integration(message: pb.Integration, field: str) -> core.Integration:
    return core.Integration(
        id=message.id,
        reference=message.reference,
        manifest=messages.parse_descriptor(message.manifest, f"{field}.manifest"),
        spec_json=message.spec_json,
    )


def _parse_origin(message: pb.ValueOrigin, field: str) -> core.ValueOrigin:
    if message.kind not in _ORIGIN_KINDS:
        raise invalid(f"{field}.kind", f"{message.kind} is unknown")
    return core.ValueOrigin(
        path=message.path, kind=_ORIGIN_KINDS[message.kind], detail=message.detail
    )
