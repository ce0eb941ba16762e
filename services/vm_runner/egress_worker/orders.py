"""What the runner says to an egress worker: what a run may do, connections, answers, secrets."""

from enum import StrEnum
from typing import Annotated

import msgspec

from services.core.egress.requests import RouteRules
from services.core.integrations.definitions import InjectionKind
from services.vm_runner.egress_worker.control_parts import Data, Id, Message, Part, Port


class Injection(Part, frozen=True):
    """One place of a request in which a placeholder is replaced.

    Attributes:
        credential: the id of what takes its place.
        kind: which place.
        domain: a host or `*.host`; the worker checks it against the connection's name again.
        header: the header's name for `API_KEY`; empty otherwise.
        placeholder: what the guest's programs hold.
        integration: the integration's id, for users and budgets.
    """

    credential: str
    kind: InjectionKind
    domain: str
    placeholder: str
    header: str = ""
    integration: str = ""


class Placeholder(Part, frozen=True):
    """A placeholder of the run, and where it may appear: at `domains` it passes as it is.

    In a request to any other host that the worker looks into, the request is blocked.
    """

    text: str
    credential: str
    domains: tuple[str, ...] = ()


class Leaf(Part, frozen=True):
    """A certificate for one name, issued by the run's CA, and its private key.

    Attributes:
        chain: PEM, the leaf first.
        key: PEM, PKCS #8, not encrypted.
    """

    chain: bytes
    key: bytes

    def __repr__(self) -> str:
        """Shows no key."""
        return f"Leaf({len(self.chain)} bytes of certificates)"


class Mode(StrEnum):
    """How a connection is treated.

    PASS: bytes pass. What begins as TLS has to name the connection's host (SNI), what begins as
    HTTP in the clear (1.1 or 2) too, and is looked into for placeholders; all else is opaque.

    INSPECT: only HTTP passes, each request by the rules: TLS is terminated with `leaf`, on a
    connection that begins with HTTP in the clear it is read as it comes.

    PAGE: no descriptor comes along; the worker reads HTTP and asks for `lns.internal`'s pages.
    """

    PASS = "pass"  # noqa: S105 - no password
    INSPECT = "inspect"
    PAGE = "page"


class Inspection(Part, frozen=True):
    """What holds for the requests of a connection.

    Attributes:
        rules: of every policy that has some for the host: a request has to fit each set.
        injections: for the host.
        budgets: ids of the budgets that its requests count for; see `AllowanceAnswer`.
        limited: whether each request is asked for first, since one of them has limits.
        exact: whether one of the limits needs what replies say they cost.
        usage: how its replies say what they cost: `anthropic`, `openai`, `google`, or empty.
        free: path patterns of requests that cost nothing.
    """

    rules: tuple[RouteRules, ...] = ()
    injections: tuple[Injection, ...] = ()
    budgets: tuple[str, ...] = ()
    limited: bool = False
    exact: bool = False
    usage: str = ""
    free: tuple[str, ...] = ()


class UpstreamTrust(Part, frozen=True):
    """How the other end of a terminated connection is verified, always by the connection's name.

    Attributes:
        ca: PEM of the only roots that count, or empty for the host's own.
        identity: the certificate and key for an end that asks for one, or None.
    """

    ca: str = ""
    identity: Leaf | None = None


class Grant(Message, frozen=True, tag="grant"):
    """The guest gets its connection; the descriptor beside it is connected to the other end.

    Attributes:
        ticket: of the `Ask`.
        connection: a number of the runner's that this run never used before.
        mode: how it is treated.
        name: what the guest asked for; empty where it asked for an address.
        address: what was dialled, as text, for users and for the IP in `Host` or certificate.
        port: what the guest asked for.
        inspection: for `INSPECT`, and what of it holds in the clear for `PASS`.
        leaf: for `INSPECT`; None where an earlier grant brought the one for this name.
        upstream: for `INSPECT`.
    """

    ticket: Id
    connection: Id
    mode: Mode
    port: Port
    name: str = ""
    address: str = ""
    inspection: Inspection = Inspection()
    leaf: Leaf | None = None
    upstream: UpstreamTrust = UpstreamTrust()


class Refuse(Message, frozen=True, tag="refuse"):
    """The guest does not get its connection. `reason` is a word for the worker's log only."""

    ticket: Id
    reason: str = ""


class Limits(Part, frozen=True):
    """Bounds of one worker; what goes beyond is refused and reported with a reason of its own.

    Attributes:
        connections: open at once.
        waiting: asked for and not answered.
        header_bytes: of one request's or reply's head.
        streams: of one HTTP/2 connection.
        head_seconds: for a head to be complete once it has begun.
    """

    connections: int = 1024
    waiting: int = 512
    header_bytes: int = 64 * 1024
    streams: int = 256
    head_seconds: float = 60.0


class Configure(Message, frozen=True, tag="configure"):
    """What holds for the whole run. A later one replaces an earlier one."""

    run: str
    placeholders: tuple[Placeholder, ...] = ()
    limits: Limits = Limits()


class Secret(Message, frozen=True, tag="secret"):
    """The value of a credential, or its newer value; None takes it away.

    Sent after the first connection to a domain of it was allowed, before that connection's grant.
    Its `repr` hides the value.
    """

    credential: str
    value: str | None = None

    def __repr__(self) -> str:
        """Names the credential only."""
        return f"Secret(credential={self.credential!r})"


class Update(Message, frozen=True, tag="update"):
    """New rules for an open connection; they hold from its next request on."""

    connection: Id
    inspection: Inspection


class Revoke(Message, frozen=True, tag="revoke"):
    """A policy permits an open connection no longer: it is reset on both sides."""

    connection: Id
    reason: str = ""


class CredentialAnswer(Message, frozen=True, tag="credential-answer"):
    """A request waits no longer: its secret has come before this, or it gets a 401.

    Attributes:
        request: of the `CredentialWanted`.
        granted: whether the secret was given.
        how_to_allow: what to do, for the body of the 401.
    """

    request: Id
    granted: bool
    how_to_allow: str = ""


class PageAnswer(Message, frozen=True, tag="page-answer"):
    """A reply of `http://lns.internal/`."""

    request: Id
    status: Annotated[int, msgspec.Meta(ge=200, le=599)]
    content_type: str
    body: Data = b""


class AllowanceAnswer(Message, frozen=True, tag="allowance-answer"):
    """Whether budgets permit a request: it goes on, or gets a 429.

    Attributes:
        request: of the `AllowanceWanted`.
        granted: whether it goes on; then its `Usage` is owed.
        error: for the body of the 429: what was spent.
        how_to_allow: for the same: how to get more.
    """

    request: Id
    granted: bool
    error: str = ""
    how_to_allow: str = ""


class Stop(Message, frozen=True, tag="stop"):
    """The run is over: everything is closed and the worker ends."""


ToWorker = (
    Configure
    | Grant
    | Refuse
    | Secret
    | Update
    | Revoke
    | CredentialAnswer
    | PageAnswer
    | AllowanceAnswer
    | Stop
)
