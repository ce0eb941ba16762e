"""What belongs to the call being served: request id, trace, deadline, its caller's variables.

The server's interceptor sets them, the channel passes them on to the next hop. Work that outlives
or serves several calls (a shared download, a supervisor) runs in `detached()` context, so that no
single caller's deadline ends it.
"""

import contextvars
import math
import re
import time
import uuid

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
_deadline: contextvars.ContextVar[float] = contextvars.ContextVar("deadline", default=math.inf)
_traceparent: contextvars.ContextVar[str] = contextvars.ContextVar("traceparent", default="")
_environment: contextvars.ContextVar[bytes] = contextvars.ContextVar("environment", default=b"")


def new_request_id() -> str:
    """Returns a fresh request id: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def is_request_id(text: str) -> bool:
    """Says whether `text` is harmless in logs and metadata: 1 to 64 of `A-Z a-z 0-9 . _ -`."""
    return _REQUEST_ID.fullmatch(text) is not None


def request_id() -> str:
    """Returns the id of the current call, or the empty string outside of one."""
    return _request_id.get()


def set_request_id(value: str) -> None:
    """Makes `value` the request id for the rest of this task and what it starts."""
    _request_id.set(value)


def is_traceparent(text: str) -> bool:
    """Says whether `text` names a trace and a span as W3C's Trace Context does."""
    return _TRACEPARENT.fullmatch(text) is not None


def traceparent() -> str:
    """Returns the trace and span that the current work belongs to, or the empty string."""
    return _traceparent.get()


def set_traceparent(value: str) -> None:
    """Makes `value` the trace and span for the rest of this task and what it starts."""
    _traceparent.set(value)


def environment() -> bytes:
    """Returns the caller's variables as `caller_environment.encode` writes them, or none."""
    return _environment.get()


def set_environment(value: bytes) -> None:
    """Makes `value` the variables for the rest of this task and what it starts."""
    _environment.set(value)


def remaining() -> float:
    """Returns the seconds left to the current call: 0 or more, infinity without a deadline."""
    return max(0.0, _deadline.get() - time.monotonic())


def set_remaining(seconds: float) -> None:
    """Makes the deadline of this task, and of what it starts, `seconds` from now."""
    _deadline.set(time.monotonic() + seconds)


def detached() -> contextvars.Context:
    """Returns a copy of this context that has no deadline; the request id stays, for the logs."""
    context = contextvars.copy_context()
    context.run(_deadline.set, math.inf)
    return context
