"""The methods that lns has, by name: what settings may permit."""

import difflib
import importlib
from collections.abc import Iterator, Mapping
from types import ModuleType

EVERYONE = "*"
"""As a name: every certificate that the authority has signed. As a method: every method."""

_MODULES = (
    "lns.egress.v1.credential_service_pb2",
    "lns.egress.v1.egress_service_pb2",
    "lns.materializer.v1.materializer_service_pb2",
    "lns.process.v1.process_service_pb2",
    "lns.registry.v1.registry_service_pb2",
    "lns.resolver.v1.resolver_service_pb2",
    "lns.vm.v1.vm_service_pb2",
)


def rule_problems(allow: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Yields what is wrong with the rules of `server.allow`: a name that no method has.

    Rules of services that another process serves are fine: one file can serve all processes.
    """
    if set(allow) - {EVERYONE}:
        _import_protos()
    for rule in allow:
        if rule != EVERYONE and not _exists(rule):
            yield f"`{rule}` names no method of lns" + _nearest(rule)


_SERVICES = {
    "lns.egress.v1": "vm_runner",
    "lns.materializer.v1": "materializer",
    "lns.registry.v1": "registry_gateway",
    "lns.resolver.v1": "resolver",
    "lns.vm.v1": "vm_runner",
}
"""Which of the four services has the services of a package."""


def service_name(method: str) -> str:
    """Returns the service that has a method, as a person knows it."""
    full_name = method.strip("/").partition("/")[0]
    return _SERVICES.get(full_name.rpartition(".")[0], full_name or "the service")


def all_methods() -> list[str]:
    """Returns every method of lns as `/package.Service/Method`, sorted."""
    found = []
    for module in _import_protos():
        for service in module.DESCRIPTOR.services_by_name.values():
            found += [f"/{service.full_name}/{method.name}" for method in service.methods]
    return sorted(found)


def _import_protos() -> list[ModuleType]:
    # Most processes have no rules and should not pay for the protos of services that they have not.
    return [importlib.import_module(name) for name in _MODULES]


def _exists(rule: str) -> bool:
    if not rule.startswith("/"):
        return False
    from google.protobuf import descriptor_pool  # noqa: PLC0415 - the client reads settings, too

    service, _, method = rule[1:].partition("/")
    try:
        found = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        return False
    return method == EVERYONE or method in found.methods_by_name


def _nearest(rule: str) -> str:
    known = all_methods()
    known += sorted({f"{name.rpartition('/')[0]}/*" for name in known})
    close = difflib.get_close_matches(rule, known, n=1)
    return f"; is `{close[0]}` meant?" if close else ": write `/lns.vm.v1.VmService/ListRuns`"
