"""Locks references and holds locks against the present: the use cases behind Lock and CheckLock."""

import asyncio

from services.core.errors import RequestInvalid
from services.core.platforms import Platform
from services.core.run_plan import RunPlan
from services.resolver.lock import (
    Lock,
    LockDifference,
    LockedManifests,
    check_exact,
    compare,
    lock_plans,
    parse_lock,
)
from services.resolver.ports import ManifestSource
from services.resolver.request import Defaults, Overrides
from services.resolver.resolve import Resolver
from services.resolver.stored_manifests import StoredManifests


class Locking:
    """Makes locks, compares them and resolves by them.

    Args:
        resolver: resolves references.
        manifests: where pinned manifests come from.
    """

    def __init__(self, resolver: Resolver, manifests: ManifestSource) -> None:
        self._resolver = resolver
        self._manifests = manifests

    async def lock(
        self, reference: str, *, platform: Platform | None, foreign: bool = False
    ) -> Lock:
        """Returns the pinned closure of a reference.

        Args:
            reference: what to lock.
            platform: platform of its images; None for the resolver's own.
            foreign: whether an image that has only another platform is taken.

        Raises:
            LnsError: as `Resolver.resolve`.
        """
        plans = await self._resolver.resolve(reference, platform=platform, foreign=foreign)
        return lock_plans(reference, platform or self._resolver.platform, plans)

    async def check(self, text: bytes) -> tuple[LockDifference, ...]:
        """Returns how a lock differs from what its reference resolves to now.

        Raises:
            RequestInvalid: the text is no lock.
            LnsError: as `Resolver.resolve`.
        """
        locked = await asyncio.to_thread(parse_lock, text)
        current = await self.lock(locked.reference, platform=locked.platform, foreign=True)
        return compare(locked, current)

    async def resolve(
        self,
        text: bytes,
        *,
        overrides: Overrides,
        defaults: Defaults,
        platform: Platform | None,
        offline: bool = False,
    ) -> tuple[RunPlan, ...]:
        """Resolves the reference of a lock to exactly what is pinned in it.

        What the reference resolves to by the lock, without any flag, must be the lock, member by
        member: nothing is left over, nothing missing, no size or role another.

        Raises:
            RequestInvalid: the text is no lock, the lock is for another platform, or was changed.
            LnsError: as `Resolver.resolve`.
        """
        locked = await asyncio.to_thread(parse_lock, text)
        if platform is not None and not platform.accepts(locked.platform):
            raise RequestInvalid(
                f"the lock is for {locked.platform}, not for {platform}",
                hint="lock again with --platform",
            )
        source = StoredManifests(self._manifests) if offline else self._manifests
        pinned = LockedManifests(locked, source)
        plans = await self._resolver.resolve(
            locked.reference, platform=locked.platform, manifests=pinned, foreign=True
        )
        check_exact(locked, lock_plans(locked.reference, locked.platform, plans))
        return await self._resolver.resolve(
            locked.reference,
            overrides=overrides,
            defaults=defaults,
            platform=locked.platform,
            manifests=pinned,
            foreign=True,  # what was taken is pinned: who locked it has decided
        )
