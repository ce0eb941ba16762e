"""What an egress worker says to the runner: questions and reports, each of them bounded."""

from enum import StrEnum
from typing import Annotated

import msgspec

from services.vm_runner.egress_worker.control_parts import (
    Address,
    Count,
    Id,
    Line,
    Message,
    Name,
    Part,
    Port,
    Status,
    Text,
    Word,
)


class OpenConnection(Part, frozen=True):
    """A connection that a worker has had open before this runner came."""

    connection: Id
    port: Port
    name: Name = ""
    address: Word = ""
    sent: Count = 0
    received: Count = 0


class Hello(Message, frozen=True, tag="hello"):
    """The first message on a control socket.

    Attributes:
        version: of this page.
        connections: open ones, at most 1024; the runner revokes those that it does not know.
        lost_reports: how many reports found no room while no runner was there.
    """

    version: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
    connections: Annotated[tuple[OpenConnection, ...], msgspec.Meta(max_length=1024)] = ()
    lost_reports: Count = 0


class Ask(Message, frozen=True, tag="ask"):
    """A program of the guest begins a connection, to a name or to an address.

    Attributes:
        ticket: a number of the guest's that waits for one answer.
        name: as the guest said it; to be normalised before anything is decided. Empty for an
            address.
        address: 16 bytes, IPv4 as IPv4-mapped; empty for a name.
        port: where to.
    """

    ticket: Id
    port: Port
    name: Name = ""
    address: Address = b""


class Admitted(Message, frozen=True, tag="admitted"):
    """The guest's program has its connection, or gave up before: then `errno` is not 0."""

    connection: Id
    errno: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)] = 0


class RequestVerdict(StrEnum):
    """What became of a request."""

    ALLOWED = "allowed"
    DENIED = "denied"


class Reason(StrEnum):
    """Why the worker refused a request, or ended a connection, by itself."""

    NONE = ""
    RULES = "rules"
    HOST_MISMATCH = "host-mismatch"
    SNI_MISMATCH = "sni-mismatch"
    PLACEHOLDER = "placeholder-elsewhere"
    CREDENTIAL_MISSING = "credential-missing"
    BUDGET = "budget-spent"
    PATH = "path-ambiguous"
    MALFORMED = "malformed"
    NOT_HTTP = "not-http"
    TUNNEL = "tunnel"
    UPGRADE = "upgrade"
    LIMIT = "limit"
    TIMEOUT = "timeout"
    UPSTREAM_TLS = "upstream-tls"
    UPSTREAM_PROTOCOL = "upstream-protocol"
    UPSTREAM_LOST = "upstream-lost"
    GUEST_TLS = "guest-tls"
    GUEST_LOST = "guest-lost"
    REVOKED = "revoked"
    INTERNAL = "internal"


class RequestDecided(Message, frozen=True, tag="request"):
    """A request on a connection that is looked into was let through, or answered by the worker.

    Attributes:
        connection: it came on.
        method: as sent, cut.
        path: normalised, without the query, cut.
        host: `Host` or `:authority`, cut.
        verdict: what became of it.
        reason: why it was denied.
        rule: the rule that refused it, or the one that let it through; empty without rules.
        status: what the worker answered, or 0.
        credentials: that were put into it.
    """

    connection: Id
    method: Word
    path: Line
    host: Name
    verdict: RequestVerdict
    reason: Reason = Reason.NONE
    rule: Line = ""
    status: Status = 0
    credentials: Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)] = ()


class CredentialWanted(Message, frozen=True, tag="credential-wanted"):
    """A request holds a placeholder whose secret the worker does not have; it waits."""

    request: Id
    connection: Id
    credential: Word
    method: Word = ""
    path: Line = ""


class PageWanted(Message, frozen=True, tag="page-wanted"):
    """A program of the guest reads or asks `http://lns.internal/`."""

    request: Id
    connection: Id
    method: Word
    path: Line
    query: Line = ""
    body: Text = ""


class AllowanceWanted(Message, frozen=True, tag="allowance-wanted"):
    """A request counts for budgets that have limits; it waits."""

    request: Id
    connection: Id
    budgets: Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)]


class Usage(Message, frozen=True, tag="usage"):
    """What one request of a metered API cost, once it is over.

    Attributes:
        connection: it came on.
        budgets: that it counts for.
        allowance: the number of its `AllowanceWanted`; 0 where none was asked for.
        requests: 1, or 0 where an allowance counted it.
        sent, received: bytes of bodies.
        model: as the reply names it.
        input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
            cache_write_long_tokens: of the reply, each token in one of them.
        exact: whether the reply reported them.
        unread: whether it may have cost something that the reply did not report.
    """

    connection: Id
    budgets: Annotated[tuple[Word, ...], msgspec.Meta(max_length=64)]
    allowance: Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)] = 0
    requests: Annotated[int, msgspec.Meta(ge=0, le=1)] = 1
    sent: Count = 0
    received: Count = 0
    model: Word = ""
    input_tokens: Count = 0
    output_tokens: Count = 0
    cache_read_tokens: Count = 0
    cache_write_tokens: Count = 0
    cache_write_long_tokens: Count = 0
    exact: bool = False
    unread: bool = False


class Closed(Message, frozen=True, tag="closed"):
    """A connection is over.

    Attributes:
        connection: its number.
        sent: bytes to the other end, as dialled (under TLS where the worker speaks it).
        received: bytes from there.
        requests: that were let through.
        reason: why, where it did not end by itself.
        text: more of it for a user, never with a secret.
    """

    connection: Id
    sent: Count = 0
    received: Count = 0
    requests: Count = 0
    reason: Reason = Reason.NONE
    text: Line = ""


class Notice(Message, frozen=True, tag="notice"):
    """A line for the run's notices: a limit that was met, an offence of the guest."""

    reason: Reason
    text: Line


ToRunner = (
    Hello
    | Ask
    | Admitted
    | RequestDecided
    | CredentialWanted
    | AllowanceWanted
    | PageWanted
    | Usage
    | Closed
    | Notice
)
