"""Prometheus metrics of a process: those of every RPC, and the endpoint that shows all.

Services define theirs in a module `metrics`, named `lns_<service>_<what>_<unit>`.
"""

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import prometheus_client

from services.chassis.settings import MetricsSettings, split_tcp_address
from services.core.errors import InUse
from services.core.version import VERSION

RPC_SECONDS = prometheus_client.Histogram(
    "lns_rpc_seconds",
    "Time from the arrival of a call to its end.",
    ["method", "code"],
    buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60, 600),
)
RPC_LIVE = prometheus_client.Gauge("lns_rpc_live", "Calls being served now.", ["method"])
RPC_BYTES = prometheus_client.Counter(
    "lns_rpc_bytes", "Bytes of messages received (in) and sent (out).", ["method", "direction"]
)
RPC_UNKNOWN = prometheus_client.Counter(
    "lns_rpc_unknown_methods", "Calls of methods that this process does not have."
)
TLS_HANDSHAKES = prometheus_client.Counter(
    "lns_tls_handshakes", "TLS handshakes that clients began, accepted or refused."
)
TLS_CONNECTIONS = prometheus_client.Counter(
    "lns_tls_connections",
    "Connections over TLS that carried a call; the other handshakes were refused or not used.",
)
CERTIFICATE_EXPIRY = prometheus_client.Gauge(
    "lns_tls_certificate_expiry_timestamp_seconds",
    "When a certificate that this process shows expires, as Unix time.",
    ["file"],
)
DISK_FREE = prometheus_client.Gauge(
    "lns_disk_free_bytes", "Bytes that are free where this process keeps its state."
)
DISK_SIZE = prometheus_client.Gauge(
    "lns_disk_size_bytes", "Size of the disk where this process keeps its state."
)
BUILD = prometheus_client.Gauge(
    "lns_build_info", "1, with the version of this process as a label.", ["version"]
)

_PEERS_KEPT = 8192
_peers: OrderedDict[str, None] = OrderedDict()


def saw_peer(peer: str) -> None:
    """Counts a connection over TLS when its first call arrives.

    Args:
        peer: address and port, as gRPC names it.
    """
    if peer in _peers:
        _peers.move_to_end(peer)
        return
    _peers[peer] = None
    TLS_CONNECTIONS.inc()
    if len(_peers) > _PEERS_KEPT:
        _peers.popitem(last=False)


class _Page(prometheus_client.MetricsHandler):
    """Answers `/metrics`, and nothing else."""

    timeout = 10.0

    def do_GET(self) -> None:  # noqa: N802 - the standard library's name
        """Writes every metric of this process."""
        if urlsplit(self.path).path != "/metrics":
            self.send_error(404, "only /metrics is here")
            return
        super().do_GET()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


@contextlib.contextmanager
def exposed(settings: MetricsSettings, *, home: Path | None = None) -> Iterator[str]:
    """Serves `/metrics` while the block runs, where the settings ask for it.

    Args:
        settings: where.
        home: the state directory, for what is free on its disk.

    Yields:
        `host:port` as it was bound, or the empty string.

    Raises:
        InUse: the address cannot be listened at.
    """
    if not settings.listen:
        yield ""
        return
    BUILD.labels(VERSION).set(1)
    if home is not None:
        DISK_FREE.set_function(lambda: _disk(home)[0])
        DISK_SIZE.set_function(lambda: _disk(home)[1])
    host, port = split_tcp_address(settings.listen)
    try:
        server = _Server((host, port), _Page)
    except OSError as error:
        raise InUse(
            f"metrics cannot be had at {settings.listen}: {error.strerror or error}",
            hint="`metrics.listen` sets the address",
            metadata={"address": settings.listen},
        ) from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _disk(home: Path) -> tuple[float, float]:
    """Returns what is free for this user where the state is, or will be, and the disk's size."""
    for place in (home, *home.parents):
        with contextlib.suppress(OSError):
            found = os.statvfs(place)
            return float(found.f_bavail * found.f_frsize), float(found.f_blocks * found.f_frsize)
    return 0.0, 0.0
