"""What the resolver counts, for Prometheus."""

import prometheus_client

MANIFESTS = prometheus_client.Counter(
    "lns_resolver_manifests",
    "Manifests that resolutions needed, by where they came from: cache, gateway.",
    ["source"],
)
