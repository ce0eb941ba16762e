"""What locks keep in the store: leases of the gateway that do not run out."""

import hashlib
import sys
from collections.abc import Sequence
from typing import Final

from lns.registry.v1 import registry_service_pb2 as registry_pb
from lns.resolver.v1 import resolver_service_pb2 as resolver_pb

from cli.context import Context
from cli.render.output import columns, write_rows
from cli.render.progress import open_reporter
from lns.client.connection.session import Peer, Session, open_session
from lns.client.running.launch import pull_all
from services.core.errors import RequestInvalid

_PREFIX: Final = "lock "
_ID_CHARACTERS: Final = 12
_COLUMNS = columns(id="ID", reference="REFERENCE", manifests="MANIFESTS")


async def keep(
    context: Context, session: Session, reference: str, lock: resolver_pb.LockResponse
) -> None:
    """Pulls what a lock names and keeps it in the store.

    Raises:
        LnsError: as the gateway gave it.
    """
    pinned = [f"{one.repository}@{one.manifest.digest}" for one in lock.closure]
    indexes = {
        f"{one.repository}@{one.manifest.digest}" for one in lock.closure if one.role == "index"
    }
    with open_reporter(context, sys.stderr) as reporter:
        reporter.doing(f"pulling what {reference} stands on")
        await pull_all(
            [one for one in pinned if one not in indexes],
            registry_pb.PULL_MODE_MISSING,
            session.registry,
            reporter,
        )
    digests = [one.manifest.digest for one in lock.closure]
    await session.registry.AcquireLease(
        registry_pb.AcquireLeaseRequest(
            lease_id=_PREFIX + hashlib.sha256(lock.lock).hexdigest()[:_ID_CHARACTERS],
            holder=f"lock of {reference}"[:200],
            digests=list(dict.fromkeys(digests)),
        )
    )


async def show(context: Context, form: str | None) -> None:
    """Lists what is kept for locks."""
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        response = await session.registry.ListLeases(registry_pb.ListLeasesRequest(prefix=_PREFIX))
    rows = [
        {
            "id": lease.lease_id.removeprefix(_PREFIX),
            "reference": lease.holder.removeprefix("lock of "),
            "manifests": len(lease.digests),
        }
        for lease in response.leases
    ]
    write_rows(rows, _COLUMNS, form=form, write=context.write)


async def remove(context: Context, ids: Sequence[str]) -> None:
    """Gives up what is kept for locks, by id or reference.

    Raises:
        RequestInvalid: there is no such lock.
    """
    async with open_session(context, Peer.REGISTRY_GATEWAY) as session:
        response = await session.registry.ListLeases(registry_pb.ListLeasesRequest(prefix=_PREFIX))
        for wanted in ids:
            found = [
                lease.lease_id
                for lease in response.leases
                if lease.lease_id.removeprefix(_PREFIX).startswith(wanted)
                or lease.holder == f"lock of {wanted}"
            ]
            if not found:
                raise RequestInvalid(
                    f"nothing is kept for a lock {wanted}", hint="`lns lock ls` lists them"
                )
            for lease_id in found:
                await session.registry.ReleaseLease(
                    registry_pb.ReleaseLeaseRequest(lease_id=lease_id)
                )
                context.write(lease_id.removeprefix(_PREFIX))
