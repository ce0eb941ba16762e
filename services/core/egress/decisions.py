"""Decisions about connections: the verdict, what gave it, and the command that would change it.

Every policy of a run has an opinion; the strictest wins, and no opinion at all is `ask`. Where the
host itself is special (an address range that names must not lead into, a port of the machine), only
a rule that names exactly that opens it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from services.core.egress.addresses import (
    Address,
    SpecialRange,
    iter_carried,
    special_range,
    unmapped,
)
from services.core.egress.compiled import (
    Opinion,
    PolicySource,
    compile_policies,
)
from services.core.egress.hosts import Host, HostKind
from services.core.egress.requests import RouteRules
from services.core.run_plan import Verdict

_STRICTNESS: Final = {Verdict.ALLOW: 0, Verdict.ASK: 1, Verdict.DENY: 2}


class Cause(StrEnum):
    """What a decision stands on."""

    ROUTE = "route"
    DEFAULT = "default"
    NO_OPINION = "no-opinion"
    SPECIAL_RANGE = "special-range"
    MACHINE_PORT = "machine-port"
    PAGE = "page"
    NO_SUCH_HOST = "no-such-host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of a connection.

    Attributes:
        verdict: allow, ask or deny.
        cause: what it stands on.
        text: the reason for a user, one line.
        how_to_allow: the command or the edit that would permit it; empty where nothing does.
        opinion: that decided; None where no policy did.
        opinions: of all policies, in their order.
        rules: which each request has to fit, of each policy that has some for the host.
    """

    verdict: Verdict
    cause: Cause
    text: str
    how_to_allow: str = ""
    opinion: Opinion | None = None
    opinions: tuple[Opinion, ...] = ()
    rules: tuple[RouteRules, ...] = ()

    @property
    def place(self) -> str:
        """Where the rule that decided stands, for users; empty where none did."""
        return "" if self.opinion is None else self.opinion.place


class Policies:
    """The policies of a run together.

    Args:
        sources: the policies, in the order in which they are shown. None is `ask` for everything.
    """

    def __init__(self, sources: Sequence[PolicySource]) -> None:
        self._policies = compile_policies(sources)

    def decide(self, host: Host, port: int) -> Decision:
        """Returns what becomes of a connection before anything is looked up for it."""
        match host.kind:
            case HostKind.PAGE:
                return _page(port)
            case HostKind.INTERNAL:
                return Decision(
                    verdict=Verdict.DENY,
                    cause=Cause.NO_SUCH_HOST,
                    text=f"{host} does not exist: only lns.internal and host.lns.internal do",
                )
            case HostKind.MACHINE:
                return self._of_machine(host, port)
        if host.address is not None:
            refusal = self.check_address(host.address, port)
            if refusal is not None:
                return refusal
        return self._of_opinions(host, port)

    def check_address(self, address: Address, port: int, *, name: str = "") -> Decision | None:
        """Returns the refusal of an address that is dialled, None where nothing speaks against it.

        To be asked of each address that an allowed name resolved to, before it is dialled, and of
        an address that is asked for itself.

        Args:
            address: what would be dialled.
            port: its port.
            name: that led to it; empty where the guest named the address.
        """
        for one in iter_carried(unmapped(address)):
            special = special_range(one)
            if special is None or self._is_opened(one, port, special, by_name=bool(name)):
                continue
            return _refused_range(one, port, special, name=name, carried_by=address)
        return None

    def _is_opened(
        self, address: Address, port: int, special: SpecialRange, *, by_name: bool
    ) -> bool:
        """Returns whether rules name a special range around an address, and no rule denies it.

        A name may lead there only if they allow it: the user was asked about the name alone.
        """
        verdicts = [
            opinion.verdict
            for policy in self._policies
            if (opinion := policy.opens(address, port, special)) is not None
        ]
        if by_name:
            return bool(verdicts) and all(verdict is Verdict.ALLOW for verdict in verdicts)
        return bool(verdicts) and Verdict.DENY not in verdicts

    def _of_opinions(self, host: Host, port: int) -> Decision:
        opinions = tuple(policy.opinion(host, port) for policy in self._policies)
        named = [opinion for opinion in opinions if opinion.verdict is not None]
        if not named:
            return Decision(
                verdict=Verdict.ASK,
                cause=Cause.NO_OPINION,
                text=f"no rule matches {host}:{port}, so it is asked for",
                how_to_allow=_allow_command(host, port),
                opinions=opinions,
            )
        decisive = max(named, key=lambda opinion: _STRICTNESS[opinion.verdict or Verdict.ASK])
        verdict = decisive.verdict or Verdict.ASK
        by_route = decisive.route is not None
        return Decision(
            verdict=verdict,
            cause=Cause.ROUTE if by_route else Cause.DEFAULT,
            text=_text(verdict, host, port, decisive),
            how_to_allow=_how_to_allow(verdict, host, port, decisive),
            opinion=decisive,
            opinions=opinions,
            rules=_rules(opinions) if verdict is not Verdict.DENY else (),
        )

    def _of_machine(self, host: Host, port: int) -> Decision:
        """Decides about a port of the machine: only routes that name exactly it permit it."""
        opinions = tuple(policy.opinion(host, port, exactly=True) for policy in self._policies)
        routes = [opinion for opinion in opinions if opinion.route is not None]
        if not routes:
            return Decision(
                verdict=Verdict.DENY,
                cause=Cause.MACHINE_PORT,
                text=f"no rule names {host}:{port}, a port of this machine",
                how_to_allow=_allow_command(host, port),
                opinions=opinions,
            )
        decisive = max(routes, key=lambda opinion: _STRICTNESS[opinion.verdict or Verdict.ASK])
        verdict = decisive.verdict or Verdict.ASK
        return Decision(
            verdict=verdict,
            cause=Cause.ROUTE,
            text=_text(verdict, host, port, decisive),
            how_to_allow=_how_to_allow(verdict, host, port, decisive),
            opinion=decisive,
            opinions=opinions,
            rules=_rules(routes) if verdict is not Verdict.DENY else (),
        )


def _rules(opinions: Sequence[Opinion]) -> tuple[RouteRules, ...]:
    return tuple(
        RouteRules.of_route(
            opinion.route, place=opinion.place, source=opinion.source, editable=opinion.editable
        )
        for opinion in opinions
        if opinion.route is not None and opinion.route.rules
    )


def _page(port: int) -> Decision:
    if port == 80:  # noqa: PLR2004 - http
        return Decision(verdict=Verdict.ALLOW, cause=Cause.PAGE, text="the pages of this run")
    return Decision(
        verdict=Verdict.DENY,
        cause=Cause.PAGE,
        text=f"the pages of this run are at http://lns.internal/, not at port {port}",
    )


def _refused_range(
    address: Address, port: int, special: SpecialRange, *, name: str, carried_by: Address
) -> Decision:
    what = str(address)
    if carried_by != address:
        what = f"{carried_by}, which carries {address}"
    subject = f"{name} leads to {what}" if name else what
    return Decision(
        verdict=Verdict.DENY,
        cause=Cause.SPECIAL_RANGE,
        text=f"{subject}: {special.network} is {special.what}, and no rule names that range",
        how_to_allow=f"lns policy allow {_command_host(Host(address=address))}:{port}",
    )


def _text(verdict: Verdict, host: Host, port: int, opinion: Opinion) -> str:
    said = {Verdict.ALLOW: "allowed", Verdict.ASK: "asked for", Verdict.DENY: "denied"}[verdict]
    if opinion.route is None:
        return f"{host}:{port} is {said} by the default of {opinion.place}"
    described = f" ({opinion.route.description})" if opinion.route.description else ""
    return f"{host}:{port} is {said} by the rule {opinion.route.match}{described}: {opinion.place}"


def _how_to_allow(verdict: Verdict, host: Host, port: int, opinion: Opinion) -> str:
    if verdict is Verdict.ALLOW:
        return ""
    if opinion.editable or verdict is Verdict.ASK:
        return _allow_command(host, port)
    return f"run it with --policy FILE: {opinion.source} denies it and is not the project's own"


def _allow_command(host: Host, port: int) -> str:
    return f"lns policy allow {_command_host(host)}:{port}"


def _command_host(host: Host) -> str:
    text = str(host)
    return f"[{text}]" if ":" in text else text
