"""Mounts of a plan: where each artifact goes, and which paths get into each other's way."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.core.errors import RequestInvalid
from services.core.run_plan import ArtifactMount, OriginKind, VolumeMount
from services.resolver.flags import mount_path
from services.resolver.gathering import Component
from services.resolver.problems import Problems, ProblemType


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMount:
    """A mount with its origin and the artifact that is mounted."""

    component: Component
    mount: ArtifactMount
    kind: OriginKind
    detail: str

    @property
    def label(self) -> str:
        """What problems call it."""
        return self.component.label


def plan_mount(
    component: Component, problems: Problems, *, flag_path: str = "", is_flag: bool = False
) -> PlannedMount | None:
    """Returns where a component is mounted; None, with a problem noted, if nothing says where.

    Args:
        component: an artifact of the application layer.
        problems: takes the problem.
        flag_path: the path of `--mount REF:/path`, which goes before the artifact's own and its
            family's default.
        is_flag: whether a flag rather than the bundle names it.
    """
    artifact = component.artifact
    path = flag_path or artifact.mount_path or artifact.family.default_mount_path(artifact.name)
    try:
        path = mount_path(path, what="mount.path")
    except RequestInvalid as error:
        problems.add_error(component.label, error)
        return None
    mount = ArtifactMount(
        family=artifact.family.slug,
        name=artifact.name,
        reference=component.fetched.pinned,
        manifest=component.fetched.manifest.descriptor,
        path=path,
        read_only=artifact.mount_read_only,
    )
    return PlannedMount(
        component=component,
        mount=mount,
        kind=OriginKind.FLAG if is_flag else OriginKind.COMPONENT,
        detail=f"--mount {component.requested}" if is_flag else component.fetched.pinned,
    )


def merge_mounts(
    of_bundle: Sequence[PlannedMount], of_flags: Sequence[PlannedMount], problems: Problems
) -> tuple[PlannedMount, ...]:
    """Returns all mounts by path: a flag replaces the bundle's mount at the same path.

    Two mounts at one path, or one inside another, are problems.
    """
    replaced = {planned.mount.path for planned in of_flags}
    kept = [planned for planned in of_bundle if planned.mount.path not in replaced]
    merged = sorted((*kept, *of_flags), key=lambda planned: planned.mount.path)
    for position, outer in enumerate(merged):
        for inner in merged[position + 1 :]:
            _check_pair(outer, inner, problems)
    return tuple(merged)


def check_volumes(
    volumes: Iterable[VolumeMount], mounts: Sequence[PlannedMount], problems: Problems
) -> None:
    """Notes volumes that share a path with another volume or hide a mount or lie inside one."""
    taken: set[str] = set()
    for volume in volumes:
        label = f"volume {volume.source}:{volume.target}"
        if volume.target in taken:
            problems.add(label, f"{volume.target} is taken twice", ProblemType.MOUNT_CONFLICT)
        taken.add(volume.target)
        for planned in mounts:
            if _overlap(volume.target, planned.mount.path):
                description = f"gets into the way of {planned.label} at {planned.mount.path}"
                problems.add(label, description, ProblemType.MOUNT_CONFLICT)


def _check_pair(outer: PlannedMount, inner: PlannedMount, problems: Problems) -> None:
    one, two = outer.mount.path, inner.mount.path
    if one == two:
        problems.add(
            inner.label,
            f"{two} is taken by {outer.label}; give one of them another mount.path",
            ProblemType.MOUNT_CONFLICT,
        )
    elif _overlap(one, two):
        problems.add(
            inner.label,
            f"{two} is inside {one}, where {outer.label} is mounted; give it a path outside",
            ProblemType.MOUNT_CONFLICT,
        )


def _overlap(one: str, two: str) -> bool:
    return one == two or two.startswith(f"{one}/") or one.startswith(f"{two}/")
