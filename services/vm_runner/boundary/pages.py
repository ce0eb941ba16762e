"""`http://lns.internal/`: what a program of the guest can read about its boundary, and ask for."""

import json
from collections.abc import Iterable
from typing import Any

from services.core.budgets.limits import BudgetLimit, format_amount
from services.core.budgets.spending import Spending, percent_used
from services.core.egress.hosts import Host, parse_authority
from services.core.errors import LnsError
from services.core.run_plan import Verdict
from services.vm_runner.boundary.audit_log import AuditLog
from services.vm_runner.boundary.decider import Decider, Ruling, can_be_asked
from services.vm_runner.boundary.records import EgressRecord, RecordKind
from services.vm_runner.boundary.run_budgets import RunBudgets
from services.vm_runner.boundary.run_policy import RunPolicy
from services.vm_runner.egress_worker.orders import PageAnswer
from services.vm_runner.egress_worker.reports import PageWanted

_DENIALS_MOST = 100
_BODY_MOST = 90 * 1024
_ROUTES_MOST = 200
_HTTPS = 443

_INDEX = """\
What this machine may reach is decided outside of it.

GET  /denials    what was refused, why, and the command that would allow it
GET  /policy     what is allowed, and how budgets stand
POST /requests   {"host": "api.example.com", "port": 443, "reason": "why it is needed"}
                 asks a user, waits, and answers with the decision
"""


class Pages:
    """The pages of one run."""

    def __init__(
        self, policy: RunPolicy, decider: Decider, audit: AuditLog, budgets: RunBudgets
    ) -> None:
        self._policy = policy
        self._decider = decider
        self._audit = audit
        self._budgets = budgets

    async def answer(self, wanted: PageWanted) -> PageAnswer:
        """Returns the reply to a request."""
        path = wanted.path.partition("?")[0].rstrip("/") or "/"
        match wanted.method, path:
            case "GET" | "HEAD", "/":
                return PageAnswer(
                    request=wanted.request, status=200, content_type="text/plain; charset=utf-8",
                    body=_INDEX.encode(),
                )  # fmt: skip
            case "GET" | "HEAD", "/denials":
                return _json(wanted, 200, {"denials": _denials(self._audit.recent)})
            case "GET" | "HEAD", "/policy":
                return _json(wanted, 200, await self._shown_policy())
            case "POST", "/requests":
                return await self._request(wanted)
            case _, "/" | "/denials" | "/policy" | "/requests":
                return _json(wanted, 405, {"error": "this page does not take that method"})
        return _json(
            wanted, 404, {"error": "this page does not exist", "pages": _INDEX.split("\n")}
        )

    async def _shown_policy(self) -> dict[str, Any]:
        policy = (await self._policy.current()).policy
        return {
            "default": str(policy.default_verdict or Verdict.ASK),
            "routes": [
                {
                    "match": route.match,
                    "verdict": str(route.verdict),
                    "description": route.description,
                    "rules": [f"{rule.method} {rule.path}" for rule in route.rules],
                }
                for route in policy.routes[:_ROUTES_MOST]
            ],
            "routes_left_out": max(0, len(policy.routes) - _ROUTES_MOST),
            "budgets": [
                _shown_budget(limit, spending)
                for spending, limits in (await self._budgets.standing()).values()
                for limit in limits
            ],
        }

    async def _request(self, wanted: PageWanted) -> PageAnswer:
        try:
            host, port, note = _parse_request(wanted.body)
        except (ValueError, LnsError) as error:
            return _json(
                wanted, 400,
                {"error": str(error), "example": {"host": "api.example.com", "reason": "…"}},
            )  # fmt: skip
        await self._decider.load()
        loaded = await self._policy.current()
        known = self._decider.judge(loaded, host, port)
        decision = loaded.policies.decide(host, port)
        if known is None or (not known.allowed and can_be_asked(decision)):
            known = await self._decider.ask(decision, host, port, note=note)
        return _json(wanted, 200 if known.allowed else 403, _told(host, port, known))


def _shown_budget(limit: BudgetLimit, spending: Spending) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "integration": limit.integration,
        "limit": limit.text,
        "used": format_amount(limit.unit, spending.used(limit.unit)),
        "percent": percent_used(limit, spending),
    }
    if unknown := spending.unknown(limit.unit):
        shown["refused_since"] = unknown
    return shown


def _told(host: Host, port: int, ruling: Ruling) -> dict[str, Any]:
    told: dict[str, Any] = {
        "host": str(host),
        "port": port,
        "verdict": "allow" if ruling.allowed else "deny",
        "reason": ruling.reason,
    }
    if ruling.how_to_allow:
        told["how_to_allow"] = ruling.how_to_allow
    return told


def _parse_request(body: str) -> tuple[Host, int, str]:
    """Reads what is asked for.

    Raises:
        ValueError: the body is not a JSON object with a host.
        RequestInvalid: the host is not valid.
    """
    data = json.loads(body)
    if not isinstance(data, dict) or not isinstance(data.get("host"), str):
        raise ValueError("the body is no JSON object with a `host`")  # noqa: TRY004 - a wrong value
    host, port = parse_authority(data["host"], default_port=_HTTPS)
    given = data.get("port", port)
    if not isinstance(given, int) or not 0 < given <= 0xFFFF:  # noqa: PLR2004 - ports have 16 bits
        raise ValueError("`port` is no port")
    return host, given, str(data.get("reason", ""))


def _denials(records: Iterable[EgressRecord]) -> list[dict[str, Any]]:
    denied = [
        record
        for record in records
        if record.verdict == "deny" and record.kind in (RecordKind.CONNECTION, RecordKind.REQUEST)
    ]
    return [
        {name: value for name, value in record.values().items() if name not in ("kind", "verdict")}
        for record in reversed(denied[-_DENIALS_MOST:])
    ]


def _json(wanted: PageWanted, status: int, value: Any) -> PageAnswer:
    body = json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
    while len(body) > _BODY_MOST and isinstance(value, dict) and value.get("denials"):
        value = {"denials": value["denials"][: len(value["denials"]) // 2]}
        body = json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
    if len(body) > _BODY_MOST:
        status, body = 500, b'{"error": "the answer is too long"}\n'
    return PageAnswer(
        request=wanted.request, status=status, content_type="application/json", body=body
    )
