"""What the gateway counts, for Prometheus."""

import prometheus_client

TRANSFERRED_BYTES = prometheus_client.Counter(
    "lns_registry_gateway_transferred_bytes",
    "Bytes of blobs that came from (in) and went to (out) registries.",
    ["direction"],
)
BLOBS = prometheus_client.Counter(
    "lns_registry_gateway_blobs",
    "Blobs that were needed, by where: in the store (in) or a registry (out), and by outcome:"
    " exists, mounted, moved, failed.",
    ["direction", "outcome"],
)
TRANSFER_SECONDS = prometheus_client.Histogram(
    "lns_registry_gateway_transfer_seconds",
    "Time to move one blob from (in) or to (out) a registry, whatever became of it.",
    ["direction"],
    buckets=(0.01, 0.05, 0.2, 0.5, 1, 5, 15, 60, 300, 1800),
)
RETRIES = prometheus_client.Counter(
    "lns_registry_gateway_retries", "Requests and transfers that were tried again."
)
