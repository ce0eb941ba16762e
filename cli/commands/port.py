"""`lns port`: the published ports of a run."""

import re

import click
from lns.types.v1 import run_plan_pb2
from lns.vm.v1 import vm_service_pb2 as pb

from cli.context import Context, command
from cli.render.runs import format_address, format_port
from lns.client.connection.session import Peer, open_session
from services.core.errors import RequestInvalid

_PORT = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:.]+\]|\d+(?:\.\d+){3}):)?(?:(?P<host>\d{1,5}):)?(?P<guest>\d{1,5})(?:/tcp)?"
)
_MAX_PORT = 65535


@command("port", doing="show the ports of {run}")
@click.argument("run", metavar="RUN")
@click.argument("guest_port", metavar="[PORT]", required=False)
@click.option(
    "-p", "--publish", multiple=True, metavar="[IP:]HOST:GUEST", help="Publish another port."
)
@click.option(
    "--unpublish", multiple=True, metavar="[IP:]HOST:GUEST", help="Stop publishing a port."
)
async def port(
    context: Context,
    run: str,
    guest_port: str | None,
    publish: tuple[str, ...],
    unpublish: tuple[str, ...],
) -> None:
    """List the published ports of a run, after the changes that -p and --unpublish ask for.

    With PORT, such as 80 or 80/tcp, only the addresses at which that port of the run is published.
    """
    asked = None if guest_port is None else _guest_port(guest_port)
    if publish or unpublish:
        context.doing = f"change the ports of {run}"
    wanted, unwanted = list(map(parse_port, publish)), list(map(parse_port, unpublish))
    async with open_session(context, Peer.VM_RUNNER) as session:
        for one in unwanted:
            await session.vm.UnpublishPort(pb.UnpublishPortRequest(run=run, port=one))
        for one in wanted:
            await session.vm.PublishPort(pb.PublishPortRequest(run=run, port=one))
        found = (await session.vm.GetRun(pb.GetRunRequest(run=run))).run
    ports = sorted(found.ports, key=lambda p: (p.container_port, p.host_ip, p.host_port))
    if asked is not None:
        ports = [one for one in ports if one.container_port == asked]
        if not ports:
            raise RequestInvalid(
                f"port {asked} of {found.name} is not published",
                hint=f"`lns port {found.name} -p {asked}` publishes it at a free port",
            )
    for one in ports:
        context.write(format_port(one) if asked is None else format_address(one))


def _guest_port(text: str) -> int:
    mapping = parse_port(text)
    if mapping.host_ip or mapping.host_port:
        raise RequestInvalid(
            f"{text!r} is not a port of the run", hint="write 80, or publish a port with -p"
        )
    return mapping.container_port


def parse_port(text: str) -> run_plan_pb2.PortMapping:
    """Returns the port `[IP:][HOST:]GUEST[/tcp]`; without HOST a free one is taken.

    Raises:
        RequestInvalid: it is not one.
    """
    match = _PORT.fullmatch(text)
    numbers = [int(number) for number in match.group("host", "guest") if number] if match else []
    if match is None or max(numbers) > _MAX_PORT or numbers[-1] == 0:
        raise RequestInvalid(f"{text!r} is not a port", hint="write 8080:80 or 127.0.0.1:8080:80")
    return run_plan_pb2.PortMapping(
        host_ip=(match["ip"] or "").strip("[]"),
        host_port=int(match["host"] or 0),
        container_port=int(match["guest"]),
        protocol="tcp",
    )
