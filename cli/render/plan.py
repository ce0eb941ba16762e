"""A run plan as a table with the origin of each value, or as JSON or YAML for machines."""

import shlex
from collections.abc import Iterator, Mapping, Sequence

from lns.types.v1 import run_plan_pb2 as pb

from cli.render.messages import to_document
from cli.render.output import Write, write_cells, write_document
from cli.render.text import printable, short_digests, short_id, to_yaml

_Row = tuple[str, str, str]

_HEADINGS = ("VALUE", "IS", "FROM")
_ORIGINS: Mapping[int, str] = {
    pb.ORIGIN_KIND_FLAG: "flag",
    pb.ORIGIN_KIND_BUNDLE: "bundle",
    pb.ORIGIN_KIND_AGENT: "agent",
    pb.ORIGIN_KIND_SANDBOX: "sandbox",
    pb.ORIGIN_KIND_IMAGE: "image",
    pb.ORIGIN_KIND_CONFIG: "lns config",
    pb.ORIGIN_KIND_BUILT_IN: "built in",
    pb.ORIGIN_KIND_COMPONENT: "component",
}


def write_plans(plans: Sequence[pb.RunPlan], *, form: str | None, write: Write) -> None:
    """Writes plans as `table` (or None), `json` or `yaml`; several are a list."""
    if form == "yaml":
        documents = [to_document(plan) for plan in plans]
        shown = documents[0] if len(documents) == 1 else documents
        write(to_yaml(shown).rstrip())
    elif form in (None, "table"):
        for number, plan in enumerate(plans):
            if number:
                write("")
            _write_table(plan, write)
    else:
        documents = [to_document(plan) for plan in plans]
        write_document(documents[0] if len(documents) == 1 else documents, form=form, write=write)


def _write_table(plan: pb.RunPlan, write: Write) -> None:
    rows = [tuple(short_digests(cell) for cell in row) for row in _rows(plan)]
    write_cells(_HEADINGS, rows, write=write)
    for warning in plan.warnings:
        write(f"warning: {printable(warning)}")


class _Origins:
    """Where values come from, by their path in the plan."""

    def __init__(self, origins: Sequence[pb.ValueOrigin]) -> None:
        self._by_path = {origin.path: origin for origin in origins}

    def of(self, *paths: str) -> str:
        """Returns the origin of the first path that has one, as a cell."""
        for path in paths:
            origin = self._by_path.get(path)
            if origin is not None:
                return f"{_ORIGINS.get(origin.kind, '')} {origin.detail}".strip()
        return ""


def _rows(plan: pb.RunPlan) -> Iterator[_Row]:
    origins = _Origins(plan.origins)
    source = plan.source
    yield "what", f"{source.kind} {source.reference}".strip(), short_id(source.digest)
    if plan.group:
        yield "group", plan.group, origins.of("group")
    if plan.has_workflow:
        yield "workflow", "carried, and not run", origins.of("workflow")
    yield "name", plan.name, origins.of("name")
    if plan.HasField("image"):
        platform = plan.image.platform
        shown = "/".join(filter(None, (platform.os, platform.architecture, platform.variant)))
        yield "image", f"{plan.image.reference} ({shown})", origins.of("image")
    yield "command", shlex.join(plan.argv), origins.of("argv")
    yield "user", plan.user or "root", origins.of("user")
    yield "workdir", plan.workdir or "/", origins.of("workdir")
    yield from _size_rows(plan.resources, origins)
    for variable in plan.env:
        yield f"env {variable.name}", variable.value, origins.of(f"env.{variable.name}", "env")
    yield from _device_rows(plan, origins)
    yield from _boundary_rows(plan, origins)
    for name in sorted(plan.labels):
        yield f"label {name}", plan.labels[name], origins.of(f"labels.{name}", "labels")


def _size_rows(resources: pb.Resources, origins: _Origins) -> Iterator[_Row]:
    cpus = str(resources.vcpus)
    if resources.cpu_millis and resources.cpu_millis != resources.vcpus * 1000:
        cpus += f" ({resources.cpu_millis}m)"
    yield "cpus", cpus, origins.of("resources.vcpus", "resources.cpu_millis")
    yield "memory", f"{resources.memory_mib} MiB", origins.of("resources.memory_mib")
    disk = f"{resources.disk_mib} MiB" if resources.disk_mib else "the runner's default"
    yield "disk", disk, origins.of("resources.disk_mib")


def _device_rows(plan: pb.RunPlan, origins: _Origins) -> Iterator[_Row]:
    for port in plan.ports:
        shown = f"{port.host_ip or '127.0.0.1'}:{port.host_port or 'any'}"
        where = f"ports[{port.container_port}]"
        yield f"port {port.container_port}", f"at {shown}", origins.of(where, "ports")
    for volume in plan.volumes:
        kind = "volume" if volume.kind == pb.VolumeMount.KIND_NAMED else "bind"
        access = " (read-only)" if volume.read_only else ""
        access += " (with its secrets)" if volume.keep_secrets else ""
        where = f"volumes[{volume.target}]"
        yield f"{kind} {volume.target}", f"{volume.source}{access}", origins.of(where, "volumes")
    for mount in plan.mounts:
        access = "" if mount.read_only else " (writable)"
        where = f"mounts[{mount.path}]"
        yield f"mount {mount.path}", f"{mount.reference}{access}", origins.of(where, "mounts")


def _boundary_rows(plan: pb.RunPlan, origins: _Origins) -> Iterator[_Row]:
    if plan.HasField("policy"):
        yield "policy", plan.policy.default_verdict, origins.of("policy.default_verdict", "policy")
        for route in plan.policy.routes:
            rules = f", {len(route.rules)} HTTP rules" if route.rules else ""
            yield f"route {route.match}", f"{route.verdict}{rules}", route.origin
    for integration in plan.integrations:
        where = f"integrations[{integration.id}]"
        yield f"integration {integration.id}", integration.reference, origins.of(where)
    for need in plan.credentials:
        where = f"credentials[{need.name}]"
        yield f"credential {need.name}", f"as {need.env}", origins.of(where, "credentials")
