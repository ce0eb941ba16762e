"""A service that asks who its client is: the worker answers, and the guest never has the key."""

import asyncio
import ssl
from dataclasses import dataclass

import pytest
import trustme

from services.vm_runner.egress_worker.orders import Inspection, Leaf, Mode, UpstreamTrust
from services.vm_runner.egress_worker.reports import Closed
from tests.support.egress_world import EgressWorld, leaf_of
from tests.support.http1_world import Client, Origin, request

SERVICE, CLIENTS, OTHERS = trustme.CA(), trustme.CA(), trustme.CA()
MINE = leaf_of(CLIENTS.issue_cert("client.test"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A service and what the runner knows of it.

    Attributes:
        identity: that the runner gives.
        issuer: of the service's certificate.
        name: that it is for.
        status: of the reply that the guest gets; 0 for none.
        says: what is said of it.
    """

    identity: Leaf | None = MINE
    issuer: trustme.CA = SERVICE
    name: str = "api.test"
    status: int = 200
    says: str = ""


@pytest.mark.parametrize(
    "case",
    [
        Case(),
        Case(identity=leaf_of(OTHERS.issue_cert("client.test")), status=0),
        Case(identity=None, status=0),
        Case(name="other.test", status=502, says="cannot be verified"),
        Case(issuer=OTHERS, status=502, says="cannot be verified"),
        Case(identity=Leaf(chain=MINE.chain, key=b"-----BEGIN"), status=502, says="api.test"),
    ],
)
async def test_a_service_that_asks_for_a_certificate_gets_the_one_of_the_settings(
    world: EgressWorld, case: Case
) -> None:
    origin = Origin()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    case.issuer.issue_cert(case.name).configure_cert(context)
    CLIENTS.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    server = await asyncio.start_server(origin.handle, "127.0.0.1", 0, ssl=context)
    trust = UpstreamTrust(ca=SERVICE.cert_pem.bytes().decode(), identity=case.identity)
    try:
        world.runner.add(
            "api.test",
            target=server.sockets[0].getsockname(),
            mode=Mode.INSPECT,
            inspection=Inspection(),
            upstream=trust,
        )
        client = await Client.over_tls(world, "api.test", protocols=())
        if case.status:
            await client.send(request())
            status, _, body = await client.response()
            assert status == case.status, body
            assert case.says in body.decode()
        else:
            await client.send(request())
            await world.runner.wait_for(Closed)
    finally:
        server.close()
    assert bool(origin.requests) == (case.status == 200)
    key = MINE.key.decode()
    assert not any(key[60:100] in repr(one) for one in world.runner.reports)
