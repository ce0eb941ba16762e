"""Traces are off until the standard variables ask for them, and pass by either way."""

import gzip
import http.server
import socket
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.chassis import calls, context, tracing

GIVEN = f"00-{'1' * 32}-{'2' * 16}-01"
AT = "http://127.0.0.1:4318"


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "mine"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": AT}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": AT}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": AT}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": AT}, False),
    ],
)
def test_the_standard_variables_decide(environment: dict[str, str], *, wanted: bool) -> None:
    assert tracing.is_wanted(environment) is wanted


def test_without_the_extra_it_is_said_and_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with (
        tracing.exported({"OTEL_EXPORTER_OTLP_ENDPOINT": AT}, process="lns") as why,
        tracing.span("work") as span,
    ):
        assert "pip install lns[traces]" in why
        assert span.traceparent == ""


def test_where_nothing_is_traced_a_trace_is_passed_on_as_it_came() -> None:
    def seen() -> dict[str, object]:
        context.set_traceparent(GIVEN)
        with tracing.span("work") as span:
            options = calls.Options(target="unix:/x", timeout=1.0, stream_timeout=1.0)
            made = options.arguments(1.0, None, None, traceparent=span.traceparent)
        return dict(made["metadata"])

    assert context.detached().run(seen)[tracing.KEY] == GIVEN


def test_a_span_is_below_the_one_around_it_and_says_how_it_ended() -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def work() -> str:
        context.set_traceparent(GIVEN)
        with (
            tracing.made_by(provider),
            tracing.span("outer", lns_run="r1"),
            pytest.raises(ValueError, match="secret"),
            tracing.span("inner"),
        ):
            raise ValueError("a secret")
        return context.traceparent()

    assert context.detached().run(work) == GIVEN
    inner, outer = exporter.get_finished_spans()
    assert inner.parent is not None
    assert outer.parent is not None
    assert outer.context is not None
    assert inner.parent.span_id == outer.context.span_id
    assert f"{outer.parent.span_id:x}" == "2" * 16
    assert dict(outer.attributes or {}) == {"lns.run": "r1"}
    assert not inner.status.is_ok
    assert "secret" not in f"{inner.to_json()}"


@pytest.mark.parametrize(
    "text", ["", "00-1-2-01", GIVEN + "\n", GIVEN.replace("1", "G"), "ff" + GIVEN[2:], GIVEN * 100]
)
def test_what_is_no_trace_is_not_taken_for_one(text: str) -> None:
    assert not context.is_traceparent(text)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """The address of a collector of traces, and what it was sent."""
    got: list[bytes] = []

    class Pages(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            packed = self.headers.get("Content-Encoding") == "gzip"
            got.append(gzip.decompress(body) if packed else body)
            self.send_response(200)
            self.end_headers()

        def log_request(self, *_: object) -> None:
            """Nobody reads it."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()
        thread.join()


def test_what_was_traced_is_sent_when_the_process_ends(
    collector: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, got = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)  # the exporter reads it itself

    with (
        tracing.exported({"OTEL_EXPORTER_OTLP_ENDPOINT": address}, process="lns-test") as why,
        tracing.span("work"),
    ):
        assert why == ""

    (sent,) = ExportTraceServiceRequest.FromString(got[0]).resource_spans
    names = {one.key: one.value.string_value for one in sent.resource.attributes}
    assert names["service.name"] == "lns-test"
    assert [span.name for span in sent.scope_spans[0].spans] == ["work"]


def test_a_collector_that_does_not_answer_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "_FLUSH_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        began = time.monotonic()

        with (
            tracing.exported({"OTEL_EXPORTER_OTLP_ENDPOINT": address}, process="lns-test"),
            tracing.span("work"),
        ):
            pass

        assert time.monotonic() - began < 5  # the exporter itself waits for 10 s
