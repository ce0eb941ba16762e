"""Judges the requests of one connection, whichever protocol they come in.

In this order: nothing is tunnelled, the host is the connection's, no placeholder goes where it does
not belong, the rules of every policy permit it, its secrets are known, and its budgets are not
spent. The outcome is reported before the request goes on or is answered.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from services.core.egress.hosts import Host, is_below, parse_authority, parse_host
from services.core.egress.requests import RequestDecision, decide_request
from services.core.errors import RequestInvalid
from services.vm_runner.egress_worker.codings import ask_for_readable
from services.vm_runner.egress_worker.heads import Header
from services.vm_runner.egress_worker.injection import inject, is_usable, wanted
from services.vm_runner.egress_worker.orders import (
    AllowanceAnswer,
    CredentialAnswer,
    Grant,
    Injection,
    Inspection,
    Mode,
)
from services.vm_runner.egress_worker.reports import Reason, RequestDecided, RequestVerdict
from services.vm_runner.egress_worker.run_state import RunState
from services.vm_runner.egress_worker.traces import (
    BodyScanner,
    Trace,
    find_in_head,
    traces_elsewhere,
)

_OVERRIDES: Final = (b"x-http-method-override", b"x-http-method", b"x-method-override")
_SHOWN: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request, as far as it is judged.

    Attributes:
        method: as sent; a WebSocket by extended CONNECT counts as GET.
        target: origin form.
        authority: of `Host` or `:authority`; empty if it has neither.
        headers: all others with them.
        is_tunnel: whether it asks for a tunnel.
        is_socket: whether it is a WebSocket by extended CONNECT.
        in_clear: whether it came without TLS.
    """

    method: bytes
    target: bytes
    authority: bytes
    headers: tuple[Header, ...]
    is_tunnel: bool = False
    is_socket: bool = False
    in_clear: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Permitted:
    """A request that goes on, with its secrets in place.

    Attributes:
        target, headers: that go on.
        scanner: of its body.
        path: normalised.
        allowance: the number under which budgets permitted it, or 0.
    """

    target: bytes
    headers: tuple[Header, ...]
    scanner: BodyScanner
    path: str = ""
    allowance: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A request that the worker answers itself."""

    status: int
    reason: Reason
    body: bytes


class Office(Protocol):
    """What a judge reports to and asks."""

    async def report(self, message: RequestDecided) -> None:
        """Reports; waits while the queue of reports is full."""
        ...

    async def ask_credential(
        self, connection: int, credential: str, *, method: str, path: str
    ) -> CredentialAnswer:
        """Waits until a credential has come or has been refused."""
        ...

    async def ask_allowance(self, connection: int, budgets: tuple[str, ...]) -> AllowanceAnswer:
        """Waits until it is known whether budgets permit one more request."""
        ...


class Judge:
    """Judges the requests of one connection."""

    def __init__(self, grant: Grant, run: RunState, office: Office) -> None:
        self._grant = grant
        self._run = run
        self._office = office
        self._host = (
            parse_host(grant.name or grant.address)
            if grant.mode is not Mode.PAGE
            else (Host(name=grant.name))
        )
        self.inspection = grant.inspection
        self.permitted = 0

    @property
    def port(self) -> int:
        """Of the connection."""
        return self._grant.port

    @property
    def injections(self) -> tuple[Injection, ...]:
        """Those of the inspection whose domain the connection's name is."""
        return tuple(
            one
            for one in self.inspection.injections
            if self._host.name and is_below(self._host.name, one.domain.lower())
        )

    def update(self, inspection: Inspection) -> None:
        """Takes new rules; they hold from the next request on."""
        self.inspection = inspection

    async def judge(self, asked: Asked) -> Permitted | Denied:
        """Returns what becomes of a request; it has been reported."""
        decision = decide_request(
            self.inspection.rules,
            _text(asked.method),
            _text(asked.target),
            overrides=_overrides(asked.headers),
        )
        denied = self._refused(asked, decision)
        allowance = 0
        credentials: tuple[str, ...] = ()
        target, headers = asked.target, asked.headers
        if denied is None and not asked.in_clear:
            denied = await self._lacking(asked, decision.path)
        if denied is None and not asked.in_clear:
            injected = inject(self.injections, target, headers, self._run.secrets)
            target, headers, credentials = injected.target, injected.headers, injected.credentials
        if denied is None:  # last, since it counts
            allowance, denied = await self._allowed()
        await self._report(asked, decision, denied, credentials)
        if denied is not None:
            return denied
        self.permitted += 1
        return Permitted(
            target=target,
            headers=ask_for_readable(headers) if self.inspection.exact else headers,
            scanner=BodyScanner(self._traces(asked)),
            path=decision.path,
            allowance=allowance,
        )

    def deny(self, reason: Reason, error: str, *, status: int = 403, **more: str) -> Denied:
        """Returns the refusal of a request, with a body that says why."""
        body = {
            "error": error,
            "host": f"{self._host}:{self._grant.port}",
            "rule": more.get("rule", ""),
            "how_to_allow": more.get("how_to_allow", ""),
        }
        data = json.dumps(body, ensure_ascii=True).encode() + b"\n"
        return Denied(status=status, reason=reason, body=data)

    async def found_in_body(self, asked: Asked, credential: str) -> Denied:
        """Returns the refusal of a request whose body has a placeholder; it has been reported."""
        denied = self._placeholder(asked, credential)
        await self._report(asked, RequestDecision(permitted=False), denied, ())
        return denied

    def _refused(self, asked: Asked, decision: RequestDecision) -> Denied | None:
        if asked.is_tunnel:
            return self.deny(
                Reason.TUNNEL,
                "a tunnel through this host would lead to where no rule looks",
                how_to_allow="connect to the destination itself and allow that",
            )
        if not self._agrees(asked):
            return self.deny(
                Reason.HOST_MISMATCH,
                f"the request is for {_text(asked.authority)[:253] or 'no host'}, "
                f"the connection for {self._host}",
                how_to_allow="connect to the host that the request is for",
            )
        credential = find_in_head(self._traces(asked), asked.target, asked.headers)
        if credential is not None:
            return self._placeholder(asked, credential)
        if asked.method.upper() == b"TRACE" and self.inspection.injections:
            return self.deny(Reason.RULES, "TRACE would read a credential back")
        if not decision.permitted:
            reason = Reason.PATH if decision.ambiguous else Reason.RULES
            return self.deny(
                reason,
                "servers read this path in different ways"
                if decision.ambiguous
                else f"no rule permits {_text(asked.method)} {decision.path}",
                rule=decision.rule,
                how_to_allow=decision.how_to_allow,
            )
        return None

    def _agrees(self, asked: Asked) -> bool:
        """Returns whether a request is for the host of its connection."""
        if self._grant.mode is Mode.PASS and (not self._grant.name or not asked.authority):
            return True  # an address may have any name; HTTP/1.0 names no host
        try:
            # A port that is not named is the connection's: so clients do it behind other ports.
            authority = parse_authority(_text(asked.authority), default_port=self._grant.port)
        except RequestInvalid:
            return False
        return authority == (self._host, self._grant.port)

    def _traces(self, asked: Asked) -> tuple[Trace, ...]:
        own = "" if asked.in_clear else self._host.name
        return traces_elsewhere(self._run.placeholders, own)

    def _placeholder(self, asked: Asked, credential: str) -> Denied:
        where = "over plain HTTP" if asked.in_clear else f"to {self._host}"
        return self.deny(
            Reason.PLACEHOLDER,
            f"the placeholder of {credential} does not go {where}",
            how_to_allow=f"send it over https to the hosts of {credential}, or leave it out",
        )

    async def _allowed(self) -> tuple[int, Denied | None]:
        """Waits for the word of budgets with limits; returns its number, or the refusal."""
        if not self.inspection.limited:
            return 0, None
        answer = await self._office.ask_allowance(self._grant.connection, self.inspection.budgets)
        if answer.granted:
            return answer.request, None
        return 0, self.deny(
            Reason.BUDGET, answer.error, status=429, how_to_allow=answer.how_to_allow
        )

    async def _lacking(self, asked: Asked, path: str) -> Denied | None:
        """Waits for the secrets that a request needs and that have not come yet."""
        for credential in wanted(self.injections, asked.target, asked.headers):
            if is_usable(self._run.secrets.get(credential, "")):
                continue
            answer = await self._office.ask_credential(
                self._grant.connection, credential, method=_text(asked.method)[:32], path=path
            )
            if not (answer.granted and is_usable(self._run.secrets.get(credential, ""))):
                return self.deny(
                    Reason.CREDENTIAL_MISSING,
                    f"the credential {credential} is not set up",
                    status=401,
                    how_to_allow=answer.how_to_allow or f"lns connect {credential}",
                )
        return None

    async def _report(
        self,
        asked: Asked,
        decision: RequestDecision,
        denied: Denied | None,
        credentials: Sequence[str],
    ) -> None:
        await self._office.report(
            RequestDecided(
                connection=self._grant.connection,
                method=_text(asked.method)[:128],
                path=(decision.path or _text(asked.target).partition("?")[0])[:_SHOWN],
                host=_text(asked.authority)[:253],
                verdict=RequestVerdict.ALLOWED if denied is None else RequestVerdict.DENIED,
                reason=Reason.NONE if denied is None else denied.reason,
                rule=decision.rule[:_SHOWN],
                status=0 if denied is None else denied.status,
                credentials=tuple(credentials),
            )
        )


def _overrides(headers: Sequence[Header]) -> list[str]:
    return [_text(value).strip().upper() for name, value in headers if name.lower() in _OVERRIDES]


def _text(data: bytes) -> str:
    return data.decode("latin-1")
