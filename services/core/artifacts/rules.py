"""Rules of documents that no schema expresses: references, quantities, routes, unique names."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from services.core.artifacts.families import (
    AGENT,
    BUNDLE,
    INTEGRATION,
    POLICY,
    SANDBOX,
    TOOL,
    Family,
)
from services.core.budgets.limits import parse_limits
from services.core.errors import LnsError
from services.core.guest_paths import mount_problem
from services.core.quantity import MIN_MEMORY_MIB, parse_cpus, parse_mebibytes
from services.core.reference import Reference
from services.core.route_match import RouteMatch

Path = tuple[str | int, ...]
Problem = tuple[Path, str]


def rule_problems(family: Family, document: Mapping[str, Any]) -> Iterator[Problem]:
    """Yields path and description of each problem of a document that fits its family's schema."""
    mount: Mapping[str, Any] = document.get("mount") or {}
    if "path" in mount and (problem := mount_problem(mount["path"])):
        yield ("mount", "path"), problem
    rules = _RULES.get(family.slug)
    if rules is not None:
        yield from rules(document["spec"], ("spec",))


def policy_problems(spec: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    """Yields the problems of a policy's spec, or of a policy file."""
    routes: list[Mapping[str, Any]] = spec.get("network", {}).get("allowedRoutes", [])
    for index, route in enumerate(routes):
        yield from _route(route, (*path, "network", "allowedRoutes", index))
    for index, entry in enumerate(spec.get("integrations", ())):
        if not isinstance(entry, str):
            yield from _reference(entry["ref"], (*path, "integrations", index, "ref"))
    for name, limits in spec.get("budgets", {}).items():
        yield from _check(partial(parse_limits, name), limits, (*path, "budgets", name))


def _agent_problems(spec: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    if "image" in spec:
        yield from _reference(spec["image"], (*path, "image"))
    yield from _repeated(spec, path, "volumes", "target")
    for index, volume in enumerate(spec.get("volumes", ())):
        if problem := mount_problem(volume["target"]):
            yield (*path, "volumes", index, "target"), problem
    yield from _repeated(spec, path, "credentials", "env")
    hosts = [port["host"] for port in spec.get("ports", ())]
    for index, host in enumerate(hosts):
        if host and host in hosts[:index]:
            yield (*path, "ports", index, "host"), f"port {host} is published twice"
    for index, credential in enumerate(spec.get("credentials", ())):
        if credential["env"] in spec.get("env", {}):
            name = credential["env"]
            yield (*path, "credentials", index, "env"), f"{name} is set in env too"


def _sandbox_problems(spec: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    resources: Mapping[str, Any] = spec.get("resources", {})
    if "cpu" in resources:
        yield from _check(parse_cpus, resources["cpu"], (*path, "resources", "cpu"))
    if "memory" in resources:
        yield from _check(
            lambda value: parse_mebibytes(value, minimum=MIN_MEMORY_MIB),
            resources["memory"],
            (*path, "resources", "memory"),
        )
    if "baseImage" in spec:
        yield from _reference(spec["baseImage"], (*path, "baseImage"))


def _bundle_problems(spec: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    for name, value in spec["components"].items():
        below = (*path, "components", name)
        entries = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, entry in entries:
            place = below if index is None else (*below, index)
            yield from _reference(entry["ref"], (*place, "ref"))


def _integration_problems(spec: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    for index, route in enumerate(spec["routes"]):
        yield from _route(route, (*path, "routes", index))


def _tool_problems(spec: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    for index, entry in enumerate(spec.get("requiredIntegrations", ())):
        yield from _reference(entry["ref"], (*path, "requiredIntegrations", index, "ref"))


_RULES: Mapping[str, Callable[[Mapping[str, Any], Path], Iterator[Problem]]] = {
    AGENT.slug: _agent_problems,
    BUNDLE.slug: _bundle_problems,
    INTEGRATION.slug: _integration_problems,
    POLICY.slug: policy_problems,
    SANDBOX.slug: _sandbox_problems,
    TOOL.slug: _tool_problems,
}


def _check(parse: Callable[[Any], object], value: object, path: Path) -> Iterator[Problem]:
    try:
        parse(value)
    except LnsError as error:
        yield path, error.message


def _reference(text: str, path: Path) -> Iterator[Problem]:
    yield from _check(Reference.parse, text, path)


def _route(route: Mapping[str, Any], path: Path) -> Iterator[Problem]:
    yield from _check(RouteMatch.parse, route["match"], (*path, "match"))


def _repeated(spec: Mapping[str, Any], path: Path, name: str, key: str) -> Iterator[Problem]:
    values: Iterable[str] = [entry[key] for entry in spec.get(name, ())]
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            yield (*path, name, index, key), f"{value} occurs twice"
        seen.add(value)
