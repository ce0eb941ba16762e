"""After every kind of failure a secret is in nothing that a worker reports or logs."""

import asyncio
import contextlib
import re
from collections.abc import Callable

import pytest

from services.vm_runner.egress_worker import control
from services.vm_runner.egress_worker.orders import Revoke, Secret
from services.vm_runner.egress_worker.reports import Closed
from tests.fakes.egress_agent import Reset
from tests.support.egress_world import EgressWorld
from tests.support.eventually import eventually
from tests.support.http1_world import (
    PLACEHOLDER,
    SECRET,
    Origin,
    configure,
    injection,
    inspected,
    reply,
    request,
    rules,
)

WITH_KEY = f"Authorization: Bearer {PLACEHOLDER}"
Answer = Callable[[bytes, bytes], bytes]


def echoing(form: bytes) -> Answer:
    """Returns a host that answers with the secret that it was sent, in some broken form."""

    def answer(head: bytes, body: bytes) -> bytes:
        found = re.search(rb"(?i)bearer ([^\r\n]+)", head)
        return form.replace(b"KEY", found[1] if found else b"")

    return answer


FAILURES: dict[str, tuple[Answer, bytes]] = {
    "a rule refuses": (echoing(reply(b"")), request("/other", WITH_KEY)),
    "another host": (echoing(reply(b"")), request("/", WITH_KEY, host="evil.test")),
    "TRACE": (echoing(reply(b"")), request("/", WITH_KEY, method="TRACE")),
    "no request": (echoing(reply(b"")), f"GET / HTTP/1.1\n{WITH_KEY}\n\n".encode()),
    "no reply": (echoing(b""), request("/", WITH_KEY)),
    "a status line with it": (echoing(b"HTTP/1.1 KEY\r\n\r\n"), request("/", WITH_KEY)),
    "a broken header with it": (
        echoing(b"HTTP/1.1 200 OK\r\nKEY\r\n\r\n"),
        request("/", WITH_KEY),
    ),
    "no HTTP but it": (echoing(b"KEY\r\n\r\n"), request("/", WITH_KEY)),
    "chunks of it": (
        echoing(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nKEY\r\n"),
        request("/", WITH_KEY),
    ),
    "an upgrade to it": (
        echoing(b"HTTP/1.1 101 OK\r\nUpgrade: KEY\r\n\r\nKEY"),
        request("/", WITH_KEY),
    ),
    "an echo in a header": (echoing(reply(b"", b"X-Echo: KEY")), request("/", WITH_KEY)),
}


REFUSED = ("a rule refuses", "another host", "TRACE", "no request")


@pytest.mark.parametrize("failure", FAILURES)
async def test_a_failure_says_nothing_of_the_secret(
    world: EgressWorld, capfd: pytest.CaptureFixture[str], failure: str
) -> None:
    answer, data = FAILURES[failure]
    origin = Origin()
    origin.answer = answer
    configure(world, "api.test")
    world.runner.say(Secret(credential="github", value=SECRET))
    async with inspected(
        world, origin, injections=(injection(),), rules=rules(("*", "/"), ("*", "/trace"))
    ) as connect:
        client = await connect()
        await client.send(data)
        async with asyncio.timeout(20):
            if failure == "no reply":
                await eventually(lambda: bool(origin.requests))
            else:
                with contextlib.suppress(Reset):
                    await client.receive()
        world.runner.say(Revoke(connection=1, reason="the test is over"))
        await world.runner.wait_for(Closed)

    sent = b"".join(head for head, _ in origin.requests)
    assert (SECRET.encode() in sent) is (failure not in REFUSED)
    said = b"".join(control.encode(report) for report in world.runner.reports)
    assert SECRET.encode() not in said
    assert SECRET not in "".join(capfd.readouterr())
    assert SECRET not in repr((world.runner.reports, world.worker.run.placeholders))
