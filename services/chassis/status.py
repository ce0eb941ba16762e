"""Errors on the wire: `LnsError` ↔ `google.rpc.Status`, the only place that knows both.

Every status of an lns service has an `ErrorInfo` whose domain is `lns` and whose reason names the
leaf class. What else an error carries travels in the standard details:

    hint          Help, one link without an address: its description is the way out
    violations    BadRequest when the code is INVALID_ARGUMENT, else PreconditionFailure
    retry_after   RetryInfo
    metadata      ErrorInfo.metadata; for NOT_FOUND its first entry also as ResourceInfo

A status without `ErrorInfo` comes from gRPC itself or from a stranger; its code then chooses the
class. A status never exceeds `MAX_STATUS_BYTES`, since it travels in HTTP trailers: violations that
do not fit are counted in a last one.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from services.core import errors
from services.core.errors import Kind, LnsError, Unclassified, Violation

DOMAIN = "lns"

MAX_STATUS_BYTES = 24 * 1024
"""Chassis channels accept 64 KiB of metadata; a foreign client has to raise its 8 KiB limit."""

DETAILS_KEY = "grpc-status-details-bin"

_TRIED_AGAIN = frozenset({errors.RegistryUnavailable.reason})
"""Reasons of calls that were tried again where they failed: each hop's retries would multiply."""

_NO_RETRY = ("grpc-retry-pushback-ms", "-1")
"""Tells gRPC's client to let a failure be (gRFC A6)."""

_MAX_TEXT = 1024
_CODES: Mapping[Kind, grpc.StatusCode] = {kind: grpc.StatusCode[kind.value] for kind in Kind}
_KINDS: Mapping[int, Kind] = {code.value[0]: kind for kind, code in _CODES.items()}

# What gRPC itself reports, by what it means to a caller of ours.
_BY_CODE: Mapping[grpc.StatusCode, type[LnsError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.RequestInvalid,
    grpc.StatusCode.OUT_OF_RANGE: errors.RequestInvalid,
    grpc.StatusCode.UNAVAILABLE: errors.ServiceUnavailable,
    grpc.StatusCode.CANCELLED: errors.ServiceUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.LimitExceeded,
    grpc.StatusCode.PERMISSION_DENIED: errors.CallerDenied,
    grpc.StatusCode.DATA_LOSS: errors.ContentCorrupt,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.UNIMPLEMENTED: errors.Unimplemented,
    grpc.StatusCode.INTERNAL: errors.Internal,
    grpc.StatusCode.UNKNOWN: errors.Internal,
}


def to_status(error: LnsError) -> status_pb2.Status:
    """Returns the wire form of `error`, for a failed call or a field such as `Run.error`."""
    status = status_pb2.Status(
        code=_CODES[error.kind].value[0], message=_shorten(error.message or error.reason)
    )
    metadata = {key: _shorten(value) for key, value in error.metadata.items()}
    _attach(
        status,
        error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata),
    )
    if error.hint:
        help_ = error_details_pb2.Help()
        help_.links.add(description=_shorten(error.hint))
        _attach(status, help_)
    if error.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(max(0, round(error.retry_after * 1e9)))
        _attach(status, error_details_pb2.RetryInfo(retry_delay=delay))
    if error.kind is Kind.NOT_FOUND and metadata:
        resource_type, resource_name = next(iter(metadata.items()))
        _attach(
            status,
            error_details_pb2.ResourceInfo(
                resource_type=resource_type, resource_name=resource_name
            ),
        )
    if error.violations:
        _attach(status, _violations_detail(error, MAX_STATUS_BYTES - status.ByteSize()))
    return status


def from_status(status: status_pb2.Status) -> LnsError:
    """Returns the error that `status` stands for: the same leaf by reason, else one by code."""
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    help_ = error_details_pb2.Help()
    bad_request = error_details_pb2.BadRequest()
    precondition = error_details_pb2.PreconditionFailure()
    for detail in (info, retry, help_, bad_request, precondition):
        _detach(status, detail)
    violations = [
        Violation(subject=v.field, description=v.description, type=v.reason)
        for v in bad_request.field_violations
    ]
    violations += [
        Violation(subject=v.subject, description=v.description, type=v.type)
        for v in precondition.violations
    ]
    make = _maker(status.code, info.reason if info.domain == DOMAIN else "")
    return make(
        status.message,
        hint=help_.links[0].description if help_.links else "",
        metadata=dict(info.metadata),
        violations=violations,
        retry_after=(
            retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None
        ),
    )


def to_grpc(error: LnsError) -> grpc.Status:
    """Returns what `context.abort_with_status` takes."""
    converted: Any = rpc_status.to_status(to_status(error))  # a named tuple
    if error.reason in _TRIED_AGAIN:
        trailers = (*converted.trailing_metadata, _NO_RETRY)
        converted = converted._replace(trailing_metadata=trailers)
    status: grpc.Status = converted
    return status


def from_rpc_error(error: grpc.aio.AioRpcError, *, target: str = "", method: str = "") -> LnsError:
    """Returns the typed error of a failed call.

    Args:
        error: what grpc raised.
        target: the address that was called, named in the message when nobody answered there.
        method: what was called there, `/package.Service/Method`.
    """
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                status = status_pb2.Status.FromString(value)
            except message.DecodeError:
                break
            if status.code == error.code().value[0]:
                return from_status(status)
    details = error.details() or ""
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return errors.ServiceUnavailable(
            f"no answer from the service at {target}" if target else "no answer from the service",
            hint="is it running (`lns service status`), and is its certificate accepted?",
            metadata={"target": target, "cause": details},
        )
    where = f"the service at {target}" if target else "the service"
    return _of_grpc(error.code(), details, where, method or "the method")


def _of_grpc(code: grpc.StatusCode, details: str, where: str, method: str) -> LnsError:
    """Returns the error of a status that gRPC itself made: in words, its own as the cause."""
    words = {
        grpc.StatusCode.CANCELLED: f"{where} ended the call",
        grpc.StatusCode.DEADLINE_EXCEEDED: f"{where} did not answer in time",
        grpc.StatusCode.UNIMPLEMENTED: f"{where} does not have {method}: its version is another",
        grpc.StatusCode.RESOURCE_EXHAUSTED: (
            "a message of the call is larger than gRPC permits"
            if "larger than" in details
            else f"{where} serves as many calls as it can"
        ),
    }
    failure = from_status(status_pb2.Status(code=code.value[0], message=words.get(code, details)))
    if code in words:
        failure.metadata["cause"] = _shorten(details)
    return failure


def _maker(code: int, reason: str) -> Callable[..., LnsError]:
    leaf = errors.LEAVES.get(reason)
    if leaf is not None:
        return leaf
    status_code = next((c for c in grpc.StatusCode if c.value[0] == code), grpc.StatusCode.UNKNOWN)
    if not reason and status_code in _BY_CODE:
        return _BY_CODE[status_code]
    kind = _KINDS.get(code, Kind.INTERNAL)

    def unclassified(
        text: str,
        *,
        hint: str,
        metadata: Mapping[str, str],
        violations: Iterable[Violation],
        retry_after: float | None,
    ) -> LnsError:
        return Unclassified(
            text,
            kind=kind,
            reason=reason or kind.value,
            hint=hint,
            metadata=metadata,
            violations=violations,
            retry_after=retry_after,
        )

    return unclassified


def _violations_detail(error: LnsError, room: int) -> message.Message:
    kept: list[Violation] = []
    for index, violation in enumerate(error.violations):
        subject, text = _shorten(violation.subject), _shorten(violation.description)
        room -= len(subject.encode()) + len(text.encode()) + len(violation.type) + 16
        if room < _MAX_TEXT:
            rest = len(error.violations) - index
            kept.append(Violation(subject="", description=f"and {rest} more", type="TRUNCATED"))
            break
        kept.append(Violation(subject=subject, description=text, type=violation.type))
    if error.kind is Kind.INVALID_ARGUMENT:
        bad_request = error_details_pb2.BadRequest()
        for v in kept:
            bad_request.field_violations.add(
                field=v.subject, description=v.description, reason=v.type
            )
        return bad_request
    precondition = error_details_pb2.PreconditionFailure()
    for v in kept:
        precondition.violations.add(type=v.type, subject=v.subject, description=v.description)
    return precondition


def _attach(status: status_pb2.Status, detail: message.Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _detach(status: status_pb2.Status, target: message.Message) -> None:
    for packed in status.details:
        if packed.TypeName() == target.DESCRIPTOR.full_name:
            try:
                packed.Unpack(target)
            except message.DecodeError:
                target.Clear()
            return


def _shorten(text: str) -> str:
    # Names out of a layer may hold lone surrogates, which protobuf refuses.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= _MAX_TEXT else text[: _MAX_TEXT - 1] + "…"
