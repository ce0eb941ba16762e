"""Traces of OpenTelemetry: spans of calls and of what they wait for, and the trace they belong to.

Off by default: a process makes spans if the extra `traces` is installed and a standard variable
(`OTEL_EXPORTER_OTLP_ENDPOINT` for example) says where they go. The trace itself goes on in any
case: what a caller sends as `traceparent` (W3C) reaches the next service. Like logging and metrics
this is the process's own and set up once.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from services.chassis import context
from services.core.version import VERSION

if TYPE_CHECKING:  # an extra: it may not be installed, and takes 0.2 s to import
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OtelSpan
    from opentelemetry.trace import Tracer

KEY: Final = "traceparent"
"""The metadata that carries the trace, as W3C's Trace Context has it."""

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_FLUSH_SECONDS: Final = 2.0

Value = str | int | bool


def is_wanted(environment: Mapping[str, str]) -> bool:
    """Says whether the standard variables ask for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    if exporter:
        return exporter.strip() == "otlp"
    return any(environment.get(name) for name in _ENDPOINTS)


@contextlib.contextmanager
def exported(environment: Mapping[str, str], *, process: str) -> Iterator[str]:
    """Makes spans and sends them over OTLP (HTTP) while the block runs, where that is wanted.

    What is left at the end is sent within two seconds or lost.

    Args:
        environment: of the process; the exporter reads its own variables from the same.
        process: its name in traces, where `OTEL_SERVICE_NAME` has none.

    Yields:
        Why there are no traces although they are wanted; empty otherwise.
    """
    if not is_wanted(environment):
        yield ""
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - see above
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - see above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - see above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - see above
    except ImportError:
        yield "OTEL_… ask for traces, but what makes them is missing: `pip install lns[traces]`"
        return
    # Where nobody set logging up, in a command, failures of the exporter are nobody's.
    logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
    own = {} if environment.get("OTEL_SERVICE_NAME") else {"service.name": process}
    provider = TracerProvider(
        resource=Resource.create({**own, "service.version": VERSION}), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    with made_by(provider):
        try:
            yield ""
        finally:
            # Its own limit of time does not hold while the exporter tries again.
            sending = threading.Thread(target=provider.force_flush, name="traces", daemon=True)
            sending.start()
            sending.join(_FLUSH_SECONDS)


@contextlib.contextmanager
def made_by(provider: "TracerProvider") -> Iterator[None]:
    """Has a provider of OpenTelemetry make the spans of this process while the block runs."""
    before = _tracers[:]
    _tracers[:] = [provider.get_tracer("lns", VERSION)]
    try:
        yield
    finally:
        _tracers[:] = before


class Span:
    """Something that takes time, in the current trace; without a tracer it is nothing."""

    def __init__(self, span: "OtelSpan | None") -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        """What the next service is to be told; empty without a trace."""
        if self._span is None:
            return context.traceparent()
        own = self._span.get_span_context()
        return f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"

    def set(self, **values: Value) -> None:
        """Adds attributes; `_` in their names stands for a dot."""
        if self._span is not None:
            self._span.set_attributes({name.replace("_", "."): v for name, v in values.items()})

    def failed(self, why: str) -> None:
        """Marks it as failed."""
        if self._span is not None:
            from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415 - see above

            self._span.set_status(Status(StatusCode.ERROR, why))

    def end(self) -> None:
        """Ends it."""
        if self._span is not None:
            self._span.end()

    def end_with(self, call: Any) -> None:
        """Ends it when a call of grpc has ended, with its code."""
        if self._span is not None:
            call.add_done_callback(self._called)

    def _called(self, call: Any) -> None:
        async def end() -> None:
            try:
                code = await call.code()
                if code.value[0]:
                    self.failed(code.name)
            finally:
                self.end()

        task = asyncio.get_running_loop().create_task(end())
        _ending.add(task)
        task.add_done_callback(_ending.discard)


def begin(name: str, *, kind: str = "INTERNAL", **values: Value) -> Span:
    """Begins a span in the current trace.

    Args:
        name: what it is.
        kind: INTERNAL, CLIENT or SERVER.
        values: attributes, as `Span.set` takes them.
    """
    if not _tracers:
        return Span(None)
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - see above
    from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - see above
        TraceContextTextMapPropagator,
    )

    above = TraceContextTextMapPropagator().extract({KEY: context.traceparent()})
    span = Span(_tracers[0].start_span(name, context=above, kind=SpanKind[kind]))
    span.set(**values)
    return span


@contextlib.contextmanager
def span(name: str, *, kind: str = "INTERNAL", **values: Value) -> Iterator[Span]:
    """Yields a span that ends with the block; what begins in it, also in other services, is below.

    Args:
        name: what it is.
        kind: INTERNAL, CLIENT or SERVER.
        values: attributes, as `Span.set` takes them.
    """
    begun = begin(name, kind=kind, **values)
    before = context.traceparent()
    context.set_traceparent(begun.traceparent)
    try:
        yield begun
    except BaseException as error:
        begun.failed(type(error).__name__)
        raise
    finally:
        context.set_traceparent(before)
        begun.end()


_tracers: "list[Tracer]" = []
_ending: set[asyncio.Task[None]] = set()
