"""What operators and tools see of a server: health, reflection, metrics."""

import asyncio
import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.chassis import metrics
from services.chassis.channel import open_channel
from services.chassis.server import running_server
from services.chassis.settings import MetricsSettings, PeerSettings, ServerSettings
from services.core import errors
from services.core.version import VERSION
from tests.behaviour.chassis.conftest import Serving
from tests.support.echo import FULL_NAME, EchoStub, echo_service, text
from tests.support.eventually import eventually

SERVING = health_pb2.HealthCheckResponse.SERVING


async def test_health_answers_for_the_process_and_for_each_service(short_directory: Path) -> None:
    settings = ServerSettings(listen=(f"unix:{short_directory}/s",), grace=0.1)

    async with (
        running_server(settings, [echo_service()]),
        open_channel(PeerSettings(target=settings.listen[0])) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", FULL_NAME):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == SERVING
        listed = await stub.List(health_pb2.HealthListRequest())
        assert {name: answer.status for name, answer in listed.statuses.items()} == {
            "": SERVING,
            FULL_NAME: SERVING,
        }
        with pytest.raises(errors.Unclassified) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.kind is errors.Kind.NOT_FOUND
        watched = await stub.Watch(health_pb2.HealthCheckRequest(service="other")).read()
        assert watched.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


async def reflect(settings: ServerSettings, request: Any) -> Any:
    async with (
        running_server(settings, [echo_service()]),
        open_channel(PeerSettings(target=settings.listen[0])) as channel,
    ):
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        async for answer in stub.ServerReflectionInfo(iter([request])):
            return answer
    return None


async def test_reflection_lists_and_describes_the_services(short_directory: Path) -> None:
    settings = ServerSettings(listen=(f"unix:{short_directory}/s",), grace=0.1)

    listed = await reflect(settings, reflection_pb2.ServerReflectionRequest(list_services=""))
    described = await reflect(
        settings, reflection_pb2.ServerReflectionRequest(file_containing_symbol=FULL_NAME)
    )

    names = {service.name for service in listed.list_services_response.service}
    assert {FULL_NAME, "grpc.health.v1.Health"} <= names
    (file, *_) = described.file_descriptor_response.file_descriptor_proto
    assert FileDescriptorProto.FromString(file).service[0].name == "EchoService"


async def test_reflection_can_be_switched_off(short_directory: Path) -> None:
    settings = ServerSettings(listen=(f"unix:{short_directory}/s",), grace=0.1, reflection=False)

    with pytest.raises(errors.Unimplemented):
        await reflect(settings, reflection_pb2.ServerReflectionRequest(list_services=""))


async def test_metrics_count_calls_by_method_and_code(echo: Serving) -> None:
    async def refuse(_: Any, __: Any) -> Any:
        raise errors.NameTaken("x")

    with metrics.exposed(MetricsSettings(listen="127.0.0.1:0")) as address:
        async with echo(Store=refuse) as stub:
            with pytest.raises(errors.NameTaken):
                await stub.Store(text("four"))
        url = f"http://{address}/metrics"
        with urllib.request.urlopen(url) as response:  # noqa: ASYNC210  # our own loopback
            page = response.read().decode()

    method = f'method="/{FULL_NAME}/Store"'
    assert f'lns_rpc_seconds_count{{code="ALREADY_EXISTS",{method}}}' in page
    assert f"lns_rpc_live{{{method}}} 0.0" in page
    assert f'lns_rpc_bytes_total{{direction="in",{method}}}' in page


def test_metrics_have_their_path_and_no_other(tmp_path: Path) -> None:
    settings = MetricsSettings(listen="127.0.0.1:0")
    with metrics.exposed(settings, home=tmp_path / "not" / "there") as address:
        with urllib.request.urlopen(f"http://{address}/metrics?x=1") as response:
            page = response.read().decode()
        for path in ("/", "/metrics/", "/metric", "/favicon.ico"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"http://{address}{path}")
            assert caught.value.code == 404
            caught.value.close()
        with pytest.raises(errors.InUse), metrics.exposed(MetricsSettings(listen=address)):
            pass

    assert f'lns_build_info{{version="{VERSION}"}} 1.0' in page
    assert float(re.findall(r"^lns_disk_free_bytes (\S+)$", page, re.MULTILINE)[0]) > 0


def test_metrics_are_not_exposed_unless_asked_for() -> None:
    with metrics.exposed(MetricsSettings()) as address:
        assert address == ""


async def test_calls_beyond_the_limit_are_refused_and_the_limit_recovers(
    short_directory: Path,
) -> None:
    go_on = asyncio.Event()
    live: list[int] = []

    async def wait(request: Any, _: Any) -> Any:
        live.append(1)
        await go_on.wait()
        return request

    settings = ServerSettings(listen=(f"unix:{short_directory}/s",), grace=0.1, concurrent_calls=2)
    async with (
        running_server(settings, [echo_service(Store=wait)]),
        open_channel(PeerSettings(target=settings.listen[0])) as channel,
    ):
        stub = EchoStub(channel)
        accepted = [asyncio.ensure_future(stub.Store(text(str(n)))) for n in range(2)]
        await eventually(lambda: len(live) == 2)
        with pytest.raises(errors.LimitExceeded):
            await stub.Store(text("one too many"))
        go_on.set()
        assert [(await call).value for call in accepted] == ["0", "1"]
        assert (await stub.Store(text("again"))).value == "again"
