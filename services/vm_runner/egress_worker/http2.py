"""HTTP/2 between a guest's program and its host: a relay of frames that judges requests.

Header blocks are decoded, judged, and encoded anew; DATA, settings, windows, pings and trailers
pass through, so that flow control stays between the two ends. A refused stream is answered here and
the connection lives on. Requests that wait (for a credential) hold up no others, so streams begin
towards the host in another order than the guest's, under numbers of their own.
"""

import asyncio

from services.vm_runner.egress_worker.endings import Ended
from services.vm_runner.egress_worker.http2_guest import FromGuest
from services.vm_runner.egress_worker.http2_host import FromHost
from services.vm_runner.egress_worker.http2_wire import Wire
from services.vm_runner.egress_worker.judge import Judge
from services.vm_runner.egress_worker.meters import Meter
from services.vm_runner.egress_worker.run_state import RunState
from services.vm_runner.egress_worker.sides import Side, SideLost, first_of


class _Over(Exception):
    """The host has ended in order: nothing more will come."""


async def serve_http2(
    guest: Side, host: Side, judge: Judge, *, run: RunState, meter: Meter, in_clear: bool
) -> None:
    """Carries frames until one side ends.

    Args:
        guest: the program's side.
        host: the other side.
        judge: of the connection.
        run: bounds and masks.
        meter: reads what replies cost.
        in_clear: whether it is without TLS.

    Raises:
        Ended: a side broke the protocol.
        SideLost: a side broke off.
    """
    wire = Wire(guest, host, run)
    try:
        async with asyncio.TaskGroup() as tasks:
            requests = FromGuest(guest, wire, judge, meter=meter, tasks=tasks, in_clear=in_clear)
            replies = FromHost(host, wire)
            tasks.create_task(_until_finished(requests, host))
            tasks.create_task(_until_over(replies))
    except* _Over:
        await guest.finish()
    except* (Ended, SideLost) as errors:
        raise first_of(errors) from None
    finally:
        for stream in wire.streams:
            if stream.metered is not None:
                await stream.metered.end(whole=False)


async def _until_finished(requests: FromGuest, host: Side) -> None:
    await requests.read()
    await host.finish()


async def _until_over(replies: FromHost) -> None:
    await replies.read()
    raise _Over
