"""Policies made ready for many decisions: each route parsed once and found by the host's name."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from services.core.egress.addresses import Address, SpecialRange, is_named_by
from services.core.egress.hosts import Host
from services.core.errors import RequestInvalid
from services.core.route_match import RouteMatch
from services.core.run_plan import Policy, PolicyRoute, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySource:
    """A policy and where it stands.

    Attributes:
        policy: its routes and its default.
        name: for users: `lns-policy.yaml`, or the reference of an artifact.
        lines: the line of each route in its file, from 1; empty where that is not known.
        editable: whether `lns policy` edits it.
    """

    policy: Policy
    name: str
    lines: tuple[int, ...] = ()
    editable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What one policy says of a connection.

    Attributes:
        verdict: what it says; None where it has neither a matching route nor a default.
        source: the policy's name.
        editable: whether `lns policy` edits it.
        route: the route that matched, or None for the default.
        index: of the route in the policy, from 0; -1 for the default.
        line: of the route in its file, from 1; 0 where that is not known.
    """

    verdict: Verdict | None
    source: str
    editable: bool = False
    route: PolicyRoute | None = None
    index: int = -1
    line: int = 0

    @property
    def place(self) -> str:
        """Where it stands, for users: `lns-policy.yaml:7 $.network.allowedRoutes[1]`."""
        where = f"{self.source}:{self.line}" if self.line else self.source
        path = "defaultVerdict" if self.route is None else f"allowedRoutes[{self.index}]"
        origin = self.route.origin if self.route is not None else ""
        if origin and origin != self.source:
            where = f"{where} (from {origin})"
        return f"{where} $.network.{path}"


class CompiledPolicy:
    """One policy, indexed. A route that cannot be understood denies what no earlier one matches."""

    def __init__(self, source: PolicySource) -> None:
        self._source = source
        self._names: dict[str, list[int]] = defaultdict(list)
        self._wildcards: dict[str, list[int]] = defaultdict(list)
        self._networks: dict[tuple[int, int], dict[int, list[int]]] = {}
        self._matches: list[RouteMatch | None] = []
        self._broken: int | None = None
        for index, route in enumerate(source.policy.routes):
            self._add(index, route)

    def _add(self, index: int, route: PolicyRoute) -> None:
        try:
            match = RouteMatch.parse(route.match)
        except RequestInvalid:
            self._matches.append(None)
            self._broken = index if self._broken is None else self._broken
            return
        self._matches.append(match)
        if match.network is not None:
            key = (match.network.version, match.network.prefixlen)
            networks = self._networks.setdefault(key, {})
            networks.setdefault(int(match.network.network_address), []).append(index)
        else:
            (self._wildcards if match.is_wildcard else self._names)[match.name].append(index)

    def opinion(self, host: Host, port: int, *, exactly: bool = False) -> Opinion:
        """Returns what the policy says of a connection.

        Args:
            host: where to.
            port: its port.
            exactly: whether only a route counts that names this host and this port.
        """
        candidates = (
            index for index in self._candidates(host) if self._is_for(index, port, exactly=exactly)
        )
        found = min(candidates, default=None)
        if self._broken is not None and (found is None or self._broken < found):
            return self._of_route(self._broken, Verdict.DENY)
        if found is not None:
            return self._of_route(found, self._source.policy.routes[found].verdict)
        return Opinion(
            verdict=self._source.policy.default_verdict,
            source=self._source.name,
            editable=self._source.editable,
        )

    def opens(self, address: Address, port: int, special: SpecialRange) -> Opinion | None:
        """Returns the route that names a special range and decides about an address in it."""
        for index in sorted(self._networks_of(address)):
            match = self._matches[index]
            if match is None or match.network is None or match.port not in (None, port):
                continue
            if is_named_by(match.network, special):
                return self._of_route(index, self._source.policy.routes[index].verdict)
        return None

    def _is_for(self, index: int, port: int, *, exactly: bool) -> bool:
        match = self._matches[index]
        if match is None:
            return False
        if exactly:
            return match.port == port and not match.is_wildcard
        return match.port in (None, port)

    def _candidates(self, host: Host) -> Iterator[int]:
        if host.address is not None:
            yield from self._networks_of(host.address)
            return
        yield from self._names.get(host.name, ())
        rest = host.name
        while rest:
            _, _, rest = rest.partition(".")
            yield from self._wildcards.get(rest, ())

    def _networks_of(self, address: Address) -> Iterator[int]:
        number = int(address)
        for (version, length), networks in self._networks.items():
            if version == address.version:
                shift = address.max_prefixlen - length
                yield from networks.get(number >> shift << shift, ())

    def _of_route(self, index: int, verdict: Verdict) -> Opinion:
        lines = self._source.lines
        return Opinion(
            verdict=verdict,
            source=self._source.name,
            editable=self._source.editable,
            route=self._source.policy.routes[index],
            index=index,
            line=lines[index] if index < len(lines) else 0,
        )


def compile_policies(sources: Sequence[PolicySource]) -> tuple[CompiledPolicy, ...]:
    """Returns some policies, ready to decide."""
    return tuple(CompiledPolicy(source) for source in sources)
