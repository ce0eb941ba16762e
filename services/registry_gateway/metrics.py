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
RETRIES = prometheus_client.Counter(
    "lns_registry_gateway_retries", "Requests and transfers that were tried again."
)
