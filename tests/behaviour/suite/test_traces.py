"""One trace leads from a command through the four services, each behind a real server."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from lns.materializer.v1 import materializer_service_pb2, materializer_service_pb2_grpc
from lns.resolver.v1 import resolver_service_pb2, resolver_service_pb2_grpc
from lns.vm.v1 import vm_service_pb2, vm_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from services.chassis import run_plan_messages, tracing
from services.chassis.channel import open_channel
from services.chassis.server import running_server
from services.chassis.settings import PeerSettings, ServerSettings
from services.chassis.settings_tree import load
from services.chassis.sockets import content_socket, suite_socket
from services.core.errors import LnsError
from services.materializer.bootstrap import open_materializer
from services.registry_gateway.bootstrap import open_gateway
from services.resolver.bootstrap import open_resolver
from services.suite.settings import SuiteProcess
from services.vm_runner.bootstrap import open_vm_runner
from services.vm_runner.host import Host
from tests.support.eventually import eventually
from tests.support.vm_service import a_plan

ABSENT = f"sha256:{'ab' * 32}"


@contextlib.asynccontextmanager
async def four_services(home: Path) -> AsyncIterator[None]:
    environment = {"LNS_HOME": str(home), "HOME": str(home)}
    settings = load(SuiteProcess, file=None, environment=environment, foreign=set())
    async with contextlib.AsyncExitStack() as stack:
        content = [
            await stack.enter_async_context(opened)
            for opened in (
                open_gateway(home, settings.registry_gateway),
                open_materializer(home, settings.materializer),
                open_resolver(home, settings.resolver),
            )
        ]
        for socket, services in (
            (content_socket(home), content),
            (
                suite_socket(home),
                await stack.enter_async_context(open_vm_runner(home, settings.vm_runner)),
            ),
        ):
            own = ServerSettings(listen=(f"unix:{socket}",), grace=1.0)
            await stack.enter_async_context(running_server(own, services))
        yield


async def work(home: Path) -> None:
    """Asks each service for something that none of them has: what counts is who is asked."""
    content = PeerSettings(target=f"unix:{content_socket(home)}")
    runner = PeerSettings(target=f"unix:{suite_socket(home)}")
    async with open_channel(content) as one, open_channel(runner) as other:
        resolver = resolver_service_pb2_grpc.ResolverServiceStub(one)
        materializer = materializer_service_pb2_grpc.MaterializerServiceStub(one)
        vm = vm_service_pb2_grpc.VmServiceStub(other)
        with contextlib.suppress(LnsError):
            await resolver.Resolve(
                resolver_service_pb2.ResolveRequest(reference=f"localhost:1/a/b@{ABSENT}")
            )
        with contextlib.suppress(LnsError):
            request = materializer_service_pb2.MaterializeRequest(manifest_digest=ABSENT)
            async for _ in materializer.Materialize(request):
                pass
        with contextlib.suppress(LnsError):
            await vm.CreateRun(
                vm_service_pb2.CreateRunRequest(
                    request_id=uuid.uuid4().hex,
                    plan=run_plan_messages.format_run_plan(a_plan("true")),
                    image_digest=ABSENT,
                    do_not_start=True,
                )
            )


async def test_one_trace_leads_through_the_four_services(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_ready(_: Host, __: object = None) -> None:
        """No guest is booted here."""

    monkeypatch.setattr(Host, "require", is_ready)
    exporter = InMemorySpanExporter()
    (short_directory / "run").mkdir()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with tracing.made_by(provider):
        async with four_services(short_directory):
            with tracing.span("lns run"):
                await work(short_directory)
            await eventually(lambda: is_complete(exporter.get_finished_spans()))

    spans = exporter.get_finished_spans()
    by_id = {span.context.span_id: span for span in spans if span.context}
    ways = {way(span, by_id) for span in spans if span.kind is SpanKind.SERVER}
    assert len({span.context.trace_id for span in spans if span.context}) == 1
    assert ways >= {
        "lns run > ResolverService > RegistryService",
        "lns run > MaterializerService",
        "lns run > VmService > MaterializerService",
    }


def is_complete(spans: tuple[ReadableSpan, ...]) -> bool:
    """Says whether the command's span is there and the upper end of every call that has a lower."""
    known = {span.context.span_id for span in spans if span.context}
    above = [span.parent for span in spans]
    return None in above and all(one is None or one.span_id in known for one in above)


def way(span: ReadableSpan, by_id: dict[int, ReadableSpan]) -> str:
    """The services on the way from the command to a span."""
    names = []
    step: ReadableSpan | None = span
    while step is not None:
        if step.kind is not SpanKind.CLIENT:
            names.append(step.name.partition("/")[0].rpartition(".")[2])
        step = by_id[step.parent.span_id] if step.parent else None
    return " > ".join(reversed(names))
