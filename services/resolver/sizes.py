"""The size of a plan's machine: CPUs, memory and disk by precedence."""

import math
from collections.abc import Callable
from typing import Final

from services.core.artifacts.specs import SandboxSpec
from services.core.errors import LnsError
from services.core.quantity import MIN_MEMORY_MIB, parse_cpus, parse_mebibytes
from services.core.run_plan import OriginKind, Resources
from services.resolver.ingredients import Ingredients
from services.resolver.origins import Offer, Origins
from services.resolver.problems import Problems, ProblemType

BUILT_IN_CPUS: Final = "1"
BUILT_IN_MEMORY: Final = "1024"

_Quantity = str | float


def choose_resources(of: Ingredients, origins: Origins, problems: Problems) -> Resources | None:
    """Returns the size of the machine; None, with problems noted, where a quantity is invalid."""
    spec = SandboxSpec.of(of.sandbox.artifact.spec) if of.sandbox is not None else None
    detail = of.sandbox.fetched.pinned if of.sandbox is not None else ""

    def choose(
        paths: tuple[str, ...], parse: Callable[[_Quantity], int], *offers: Offer[_Quantity]
    ) -> int | None:
        chosen = next(offer for offer in offers if offer.value is not None)
        for path in paths:
            origins.note(path, chosen.kind, chosen.detail)
        try:
            return None if chosen.value is None else parse(chosen.value)
        except LnsError as error:
            problems.add(_subject(chosen, of), error.message, ProblemType.FLAG_INVALID)
            return None

    cpus = choose(
        ("resources.vcpus", "resources.cpu_millis"),
        parse_cpus,
        Offer(value=of.overrides.cpus, kind=OriginKind.FLAG, detail="--cpus"),
        Offer(value=spec.cpu if spec else None, kind=OriginKind.SANDBOX, detail=detail),
        Offer(value=of.defaults.cpus, kind=OriginKind.CONFIG, detail="cpus"),
        Offer(value=BUILT_IN_CPUS, kind=OriginKind.BUILT_IN),
    )
    memory = choose(
        ("resources.memory_mib",),
        lambda value: parse_mebibytes(value, minimum=MIN_MEMORY_MIB),
        Offer(value=of.overrides.memory, kind=OriginKind.FLAG, detail="--memory"),
        Offer(value=spec.memory if spec else None, kind=OriginKind.SANDBOX, detail=detail),
        Offer(value=of.defaults.memory, kind=OriginKind.CONFIG, detail="memory"),
        Offer(value=BUILT_IN_MEMORY, kind=OriginKind.BUILT_IN),
    )
    disk = choose(
        ("resources.disk_mib",),
        lambda value: parse_mebibytes(value, what="disk") if value else 0,
        Offer(value=of.overrides.disk, kind=OriginKind.FLAG, detail="--disk"),
        Offer(value=of.defaults.disk, kind=OriginKind.CONFIG, detail="disk"),
        Offer(value=0, kind=OriginKind.BUILT_IN, detail="the runner's default"),
    )
    if cpus is None or memory is None or disk is None:
        return None
    return Resources(
        vcpus=math.ceil(cpus / 1000), cpu_millis=cpus, memory_mib=memory, disk_mib=disk
    )


def _subject(offer: Offer[_Quantity], of: Ingredients) -> str:
    if offer.kind is OriginKind.SANDBOX and of.sandbox is not None:
        return of.sandbox.label
    return f"lns config {offer.detail}" if offer.kind is OriginKind.CONFIG else offer.detail
