"""A registry in memory with artifacts on it, and a resolver that reads from it."""

from dataclasses import dataclass, field
from typing import Any

from services.core.artifacts import families
from services.core.artifacts.families import Family
from services.core.run_plan import OriginKind, RunPlan
from services.resolver.request import Defaults, Overrides
from services.resolver.resolution import Settings
from services.resolver.resolve import Resolver
from tests.fakes.manifest_source import AMD64, FakeManifests
from tests.support.documents import document

HOST = "registry.test"
IMAGE = f"{HOST}/images/base:1"


@dataclass(slots=True)
class Shelf:
    """Puts artifacts onto a registry and resolves them.

    Every artifact is `<path segment>/<name>:1` on `HOST`. The image `IMAGE` exists.
    """

    manifests: FakeManifests = field(default_factory=FakeManifests)

    def __post_init__(self) -> None:
        self.manifests.put_image(
            IMAGE, {"Cmd": ["/bin/agent"], "Env": ["PATH=/bin", "A=image"], "WorkingDir": "/home"}
        )

    def put(
        self,
        family: Family,
        name: str,
        spec: dict[str, Any] | None = None,
        *,
        layers: int = 0,
        **more: Any,
    ) -> str:
        """Puts an artifact; returns its reference without the host."""
        reference = f"{family.path_segment}/{name}:1"
        value = document(family, name, {} if spec is None else spec, **more)
        self.manifests.put_artifact(f"{HOST}/{reference}", family, value, layers=layers)
        return reference

    def agent(self, name: str = "hello", **spec: Any) -> str:
        """Puts an agent with `IMAGE`; returns its reference without the host."""
        return self.put(families.AGENT, name, {"image": IMAGE, **spec})

    def fileset(self, name: str, path: str, **mount: Any) -> str:
        """Puts a file set with one layer; returns its reference without the host."""
        mounted = {"path": path, **mount}
        return self.put(families.FILESET, name, layers=1, mount=mounted)

    def bundle(self, name: str = "system", **components: Any) -> str:
        """Puts a bundle; components are references, lists of them, or as documents have them."""
        return f"{HOST}/" + self.put(
            families.BUNDLE,
            name,
            {"components": {key: _component(value) for key, value in components.items()}},
        )

    def resolver(self, version: str = "0.1.0") -> Resolver:
        """Returns a resolver without a cache."""
        return Resolver(self.manifests, Settings(platform=AMD64, version=version))

    async def resolve(
        self, reference: str, defaults: Defaults | None = None, **flags: Any
    ) -> tuple[RunPlan, ...]:
        """Resolves a reference with flags."""
        return await self.resolver().resolve(
            reference, overrides=Overrides(**flags), defaults=defaults
        )

    async def plan(self, reference: str, defaults: Defaults | None = None, **flags: Any) -> RunPlan:
        """Resolves a reference into its only plan."""
        (plan,) = await self.resolve(reference, defaults, **flags)
        return plan


def origin(plan: RunPlan, path: str) -> OriginKind:
    """Returns where a value of a plan comes from."""
    (found,) = [one.kind for one in plan.origins if one.path == path]
    return found


def _component(value: Any) -> Any:
    if isinstance(value, list):
        return [_component(one) for one in value]
    return {"ref": value} if isinstance(value, str) else value
