"""The standard scopes around a served call; `interceptors` says what a scope is."""

import asyncio
import contextlib
import math
import time
import urllib.parse
from collections.abc import AsyncIterator, Mapping

import grpc
import grpc.aio
import structlog

from services.chassis import caller_environment, context, metrics, tracing
from services.chassis.calls import REQUEST_ID_KEY
from services.chassis.interceptors import Scope, ServedCall
from services.chassis.reserve import is_full
from services.chassis.revocation import RevocationList
from services.chassis.rpc_methods import EVERYONE
from services.chassis.status import from_rpc_error, to_grpc
from services.core import errors

log = structlog.get_logger()

_OPEN_PREFIXES = ("/grpc.health.v1.", "/grpc.reflection.")
"""Probes and tools: open to all who connect, and not worth a line at level info."""

_DEFECTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNKNOWN}


def standard_scopes(
    *,
    allow: Mapping[str, tuple[str, ...]] | None,
    unary_limit: float,
    revoked: RevocationList | None = None,
) -> list[Scope]:
    """Returns the scopes of every lns server, outermost first."""
    return [identify, trace, observe, answer, authorize(allow, revoked), limit(unary_limit)]


@contextlib.asynccontextmanager
async def identify(call: ServedCall) -> AsyncIterator[None]:
    """Takes the caller's request id or makes one; a call has its task, so nothing is put back."""
    given = call.metadata.get(REQUEST_ID_KEY, "")
    known = isinstance(given, str) and context.is_request_id(given)
    request_id = str(given) if known else context.new_request_id()
    context.set_request_id(request_id)
    variables = call.metadata.get(caller_environment.KEY, b"")
    if isinstance(variables, bytes) and call.context.peer().startswith("unix:"):
        context.set_environment(variables)
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id, method=call.method)
    yield


@contextlib.asynccontextmanager
async def trace(call: ServedCall) -> AsyncIterator[None]:
    """Continues the caller's trace, with a span for the call; probes have none."""
    given = call.metadata.get(tracing.KEY, "")
    if isinstance(given, str) and context.is_traceparent(given):
        context.set_traceparent(given)
    if call.method.startswith(_OPEN_PREFIXES):
        yield
        return
    service, _, method = call.method.strip("/").partition("/")
    with tracing.span(
        call.method.strip("/"), kind="SERVER", rpc_system="grpc", rpc_service=service,
        rpc_method=method, lns_request_id=context.request_id(),
    ) as span:  # fmt: skip
        try:
            yield
        finally:
            if call.reason:
                span.set(lns_reason=call.reason)


@contextlib.asynccontextmanager
async def observe(call: ServedCall) -> AsyncIterator[None]:
    """Writes the call's one log line and its metrics when it has ended."""
    live = metrics.RPC_LIVE.labels(call.method)
    live.inc()
    code = grpc.StatusCode.OK
    try:
        yield
        set_by_handler: grpc.StatusCode | None = call.context.code()
        code = set_by_handler or code
    except asyncio.CancelledError:
        expired = call.context.time_remaining() == 0
        code = grpc.StatusCode.DEADLINE_EXCEEDED if expired else grpc.StatusCode.CANCELLED
        raise
    except grpc.aio.AbortError:
        code = call.context.code()
        raise
    except grpc.aio.BaseError:
        code = grpc.StatusCode.CANCELLED  # the caller left while it was being written to
        raise
    finally:
        live.dec()
        _report(call, code)


def _report(call: ServedCall, code: grpc.StatusCode) -> None:
    seconds = time.monotonic() - call.started
    metrics.RPC_SECONDS.labels(call.method, code.name).observe(seconds)
    metrics.RPC_BYTES.labels(call.method, "in").inc(call.bytes_in)
    metrics.RPC_BYTES.labels(call.method, "out").inc(call.bytes_out)
    write = log.error if code in _DEFECTS else log.info
    if call.method.startswith(_OPEN_PREFIXES):
        write = log.debug
    write(
        "rpc_finished",
        method=call.method,
        code=code.name,
        reason=call.reason,
        duration_ms=round(seconds * 1000, 1),
        messages_in=call.messages_in,
        messages_out=call.messages_out,
        bytes_in=call.bytes_in,
        bytes_out=call.bytes_out,
        peer=urllib.parse.unquote(call.context.peer()),
        principal=call.principal,
        request_id=context.request_id(),
    )


@contextlib.asynccontextmanager
async def answer(call: ServedCall) -> AsyncIterator[None]:
    """Turns what the handler raises into a status; what was not meant for the caller stays here."""
    failure: errors.LnsError | None = None
    try:
        yield
    except grpc.aio.UsageError:
        failure = _defect()
    except grpc.aio.BaseError:
        raise  # aborted already, or there is nobody left to answer
    except errors.LnsError as error:
        failure = error
    except NotImplementedError:  # what generated servicers do for a method nobody wrote
        failure = errors.Unimplemented(
            f"{call.method} is not implemented in this version",
            hint="a newer version of lns may have it",
        )
    except grpc.aio.AioRpcError as error:
        failure = from_rpc_error(error)
    except OSError as error:
        failure = _full_disk() if is_full(error) else _defect()
    except Exception:  # noqa: BLE001  # the last line: no exception's text may reach a caller
        failure = _defect()
    if failure is None:
        return
    call.reason = failure.reason
    await call.context.abort_with_status(to_grpc(failure))


def _full_disk() -> errors.CapacityExhausted:
    """Logs where a disk was full, and returns what the caller may know of it."""
    log.warning("disk_full", exc_info=True)
    return errors.CapacityExhausted(
        "a disk of the service's machine is full",
        hint="free some space there, or `lns prune`; `lns doctor` shows how much is free",
    )


def _defect() -> errors.Internal:
    """Logs the exception being handled and returns what the caller may know of it."""
    log.exception("rpc_handler_failed")
    return errors.Internal(
        "internal error",
        hint="the log of the service has the details under this request id",
        metadata={"request_id": context.request_id()},
    )


def authorize(
    allow: Mapping[str, tuple[str, ...]] | None, revoked: RevocationList | None = None
) -> Scope:
    """Returns a scope that holds the caller's certificate against `allow`, by method.

    A method without a rule is nobody's. A unix socket's permission is its own authorization, and
    None for `allow` says that whoever reaches the port may do everything.
    """

    @contextlib.asynccontextmanager
    async def scope(call: ServedCall) -> AsyncIterator[None]:
        names = [name.decode("utf-8", "replace") for name in call.context.peer_identities() or ()]
        call.principal = names[0] if names else ""
        local = call.context.peer().startswith("unix:")
        if names and not local:
            metrics.saw_peer(call.context.peer())
        if names and revoked is not None:
            for certificate in call.context.auth_context().get("x509_pem_cert", ()):
                revoked.check(bytes(certificate))
        if allow is not None and not local and not call.method.startswith(_OPEN_PREFIXES):
            call.principal = _permitted(names, call.method, allow)
        yield

    return scope


def _permitted(names: list[str], method: str, allow: Mapping[str, tuple[str, ...]]) -> str:
    """Returns the name that permits a call; the most exact rule decides."""
    service = method.rpartition("/")[0]
    rules = (method, f"{service}/{EVERYONE}", EVERYONE)
    permitted = next((allow[rule] for rule in rules if rule in allow), ())
    found = next((name for name in names if name in permitted), "")
    if not found and EVERYONE in permitted and names:
        found = names[0]
    if not found:
        raise errors.CallerDenied(
            f"{', '.join(names) or 'a caller without certificate'} may not call {method}",
            hint="`server.allow` of the service lists who may",
            metadata={"method": method},
        )
    return found


def limit(unary_limit: float) -> Scope:
    """Returns a scope that makes the call's deadline known, and ends unary calls in time."""

    @contextlib.asynccontextmanager
    async def scope(call: ServedCall) -> AsyncIterator[None]:
        given: float | None = call.context.time_remaining()
        asked = math.inf if given is None else given
        allowed = math.inf if call.streams_answers else unary_limit
        context.set_remaining(min(asked, allowed))
        if asked <= allowed:
            yield  # grpc itself ends the call then
            return
        timeout = asyncio.timeout(allowed)
        try:
            async with timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise errors.DeadlineExceeded(
                f"{call.method} was not finished within {allowed:g} s",
                hint="`server.unary_limit` of the service sets the limit",
            ) from error

    return scope
