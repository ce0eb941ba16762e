"""Resolves references into run plans: the use case behind Resolve."""

from services.core.errors import RequestInvalid
from services.core.platforms import Platform
from services.core.run_plan import RunPlan
from services.resolver.ports import ManifestSource
from services.resolver.request import Defaults, Overrides
from services.resolver.resolution import Resolution, Settings
from services.resolver.stored_manifests import StoredManifests


class Resolver:
    """Resolves references; keeps nothing between two calls.

    Args:
        manifests: where manifests come from.
        settings: what it goes by.
    """

    def __init__(self, manifests: ManifestSource, settings: Settings) -> None:
        self._manifests = manifests
        self._settings = settings

    @property
    def platform(self) -> Platform:
        """Platform of runs that name none."""
        return self._settings.platform

    async def resolve(
        self,
        reference: str,
        *,
        overrides: Overrides | None = None,
        defaults: Defaults | None = None,
        platform: Platform | None = None,
        manifests: ManifestSource | None = None,
        offline: bool = False,
        foreign: bool = False,
    ) -> tuple[RunPlan, ...]:
        """Resolves a reference into one plan for each agent.

        Args:
            reference: an image, an agent or a bundle.
            overrides: what the command line says.
            defaults: those of `lns config`.
            platform: platform of the images; None for the resolver's own.
            manifests: where manifests come from, instead of the resolver's own source.
            offline: whether only what is on this node may answer.
            foreign: whether an image that has only another platform is taken, for an emulated
                guest.

        Raises:
            PlanInvalid: the plan has problems; all of them are in it.
            ArtifactTypeUnsupported: the reference names nothing that can be run.
            ManifestUnknown, PlatformUnsupported, RegistryUnauthenticated and others of
                `ManifestSource.fetch`: the reference itself cannot be had.
            ServiceUnavailable: the gateway is gone; nothing is resolved by half.
        """
        source = manifests or self._manifests
        resolution = Resolution(
            reference,
            manifests=StoredManifests(source) if offline else source,
            settings=self._settings,
            platform=platform or self._settings.platform,
            foreign=foreign,
            overrides=overrides or Overrides(),
            defaults=defaults or Defaults(),
        )
        return await resolution.run()

    async def resolve_imageless(
        self, *, overrides: Overrides, defaults: Defaults | None = None
    ) -> tuple[RunPlan, ...]:
        """Resolves a run without an image, which needs a command.

        Raises:
            RequestInvalid: there is no command.
            PlanInvalid: the plan has problems.
            ServiceUnavailable: the gateway is gone.
        """
        if not overrides.argv and not overrides.entrypoint:
            raise RequestInvalid(
                "a run without a reference needs a command", hint="lns run -- COMMAND [ARGUMENT…]"
            )
        resolution = Resolution(
            "",
            manifests=self._manifests,
            settings=self._settings,
            platform=self._settings.platform,
            overrides=overrides,
            defaults=defaults or Defaults(),
        )
        return await resolution.run_imageless()
