"""What an artifact may publish on the host by itself: nothing that is taken for the host's own.

A user who names a port with `-p` consents to it. A port that only an artifact names is published
where it is above 1023, and where no registry is that lns would talk to without TLS: whoever listens
there is believed. Those are the usual one, this machine's registries in the plan, and what the
settings say is spoken to without TLS, by whatever name of this machine.
"""

from collections.abc import Collection, Iterator

from services.core.errors import RequestInvalid
from services.core.reference import is_loopback_host
from services.core.run_plan import OriginKind, RunPlan

_PRIVILEGED_BELOW = 1024
_USUAL_REGISTRY = 5000
_HTTP = 80


def check_ports(plan: RunPlan, *, plain_registries: Collection[str] = ()) -> None:
    """Refuses ports that need the consent of a user and have only an artifact's wish.

    Args:
        plan: what is to run.
        plain_registries: hosts, with or without port, that lns speaks to without TLS.

    Raises:
        RequestInvalid: there is such a port; `-p` is the way out.
    """
    wishes = [
        one for one in plan.origins if one.path == "ports" and one.kind is not OriginKind.FLAG
    ]
    if not wishes:
        return
    trusted = set(_trusted_ports(plan, plain_registries))
    for port in plan.ports:
        why = ""
        if 0 < port.host_port < _PRIVILEGED_BELOW:
            why = f"ports below {_PRIVILEGED_BELOW} are the system's"
        elif port.host_port in trusted:
            why = "a registry is believed there without TLS"
        if why:
            raise RequestInvalid(
                f"the artifact wants to publish port {port.host_port} of this machine: {why}",
                hint=f"publish it yourself, -p {port.host_port}:{port.container_port}, or another",
                metadata={"port": str(port.host_port), "artifact": wishes[0].detail},
            )


def _trusted_ports(plan: RunPlan, plain_registries: Collection[str]) -> Iterator[int]:
    """The ports where someone of this machine would be taken for a registry."""
    yield _USUAL_REGISTRY
    in_plan = (manifest.repository.partition("/")[0] for manifest in plan.closure)
    for host in (*filter(is_loopback_host, in_plan), *plain_registries):
        _, colon, number = host.rpartition(":")
        yield int(number) if colon and number.isdigit() else _HTTP
