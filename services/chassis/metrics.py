"""Prometheus metrics of a process: those of every RPC, and the endpoint that shows all.

Services define theirs at module level with `prometheus_client`: `lns_<service>_<what>_<unit>`.
"""

import contextlib
from collections.abc import Iterator

import prometheus_client

from services.chassis.settings import MetricsSettings, split_tcp_address

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


@contextlib.contextmanager
def exposed(settings: MetricsSettings) -> Iterator[str]:
    """Serves `/metrics` while the block runs, where the settings ask for it.

    Yields:
        `host:port` as it was bound, or the empty string.
    """
    if not settings.listen:
        yield ""
        return
    host, port = split_tcp_address(settings.listen)
    server, thread = prometheus_client.start_http_server(port, addr=host)
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
