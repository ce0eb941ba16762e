"""Services under measurement: real processes, each with a state directory of the benchmark's."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
from lns.materializer.v1 import materializer_service_pb2 as materializer_pb
from lns.materializer.v1 import materializer_service_pb2_grpc as materializer_rpc
from lns.registry.v1 import registry_service_pb2 as registry_pb
from lns.registry.v1 import registry_service_pb2_grpc as registry_rpc

_START_SECONDS = 60.0
_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """A registry gateway."""

    pid: int
    stub: Any
    """A `RegistryServiceStub` without asyncio, which the generated types do not know."""

    def pull(self, reference: str) -> registry_pb.PullResult:
        """Pulls into the store."""
        request = registry_pb.PullRequest(reference=reference)
        return cast("registry_pb.PullResult", _result(self.stub.Pull(request, timeout=_SECONDS)))

    def push(self, source: str, reference: str) -> registry_pb.PushImageResult:
        """Pushes an image from the store or another source."""
        request = registry_pb.PushImageRequest(source=source, reference=reference)
        events = self.stub.PushImage(request, timeout=_SECONDS)
        return cast("registry_pb.PushImageResult", _result(events))


@dataclass(frozen=True, slots=True, kw_only=True)
class Materializer:
    """A materializer."""

    pid: int
    stub: Any
    """A `MaterializerServiceStub`, likewise."""

    def materialize(self, manifest_digest: str) -> materializer_pb.MaterializeResult:
        """Makes the image of a manifest in the store."""
        request = materializer_pb.MaterializeRequest(manifest_digest=manifest_digest)
        events = self.stub.Materialize(request, timeout=_SECONDS)
        return cast("materializer_pb.MaterializeResult", _result(events))


@contextlib.contextmanager
def run_gateway(home: Path) -> Iterator[Gateway]:
    """A gateway process with its store below `home`."""
    with _run("registry_gateway", home) as (pid, channel):
        yield Gateway(pid=pid, stub=registry_rpc.RegistryServiceStub(channel))


@contextlib.contextmanager
def run_materializer(home: Path) -> Iterator[Materializer]:
    """A materializer process with its store below `home`."""
    with _run("materializer", home) as (pid, channel):
        yield Materializer(pid=pid, stub=materializer_rpc.MaterializerServiceStub(channel))


@contextlib.contextmanager
def _run(name: str, home: Path) -> Iterator[tuple[int, Any]]:
    home.mkdir(parents=True, exist_ok=True)
    socket = home / f"{name[:3]}.sock"
    environment = {
        **os.environ,
        "LNS_HOME": str(home),
        "LNS_SERVER__LISTEN": f"unix:{socket}",
        "HOME": str(home),  # nobody's logins
    }
    log = (home / f"{name}.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", f"services.{name}"], env=environment, stdout=log, stderr=log
    )
    with log, process, grpc.insecure_channel(f"unix:{socket}") as channel:
        try:
            _wait(process, channel, Path(log.name))
            yield process.pid, channel
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def _result(events: Iterable[Any]) -> Any:
    """Returns the result that a stream of progress ends with."""
    *_, last = events
    assert last.WhichOneof("event") == "result"
    return last.result


def _wait(process: subprocess.Popen[bytes], channel: grpc.Channel, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(grpc.FutureTimeoutError):
            grpc.channel_ready_future(channel).result(timeout=1)
            return
    raise RuntimeError(f"{process.args!r} did not serve: {log.read_text()[-2000:]}")
