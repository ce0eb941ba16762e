"""What the materializer counts, for Prometheus."""

import prometheus_client

IMAGES = prometheus_client.Counter(
    "lns_materializer_images",
    "Images that were asked for, by outcome: exists, made, failed.",
    ["outcome"],
)
IMAGE_SECONDS = prometheus_client.Histogram(
    "lns_materializer_image_seconds",
    "Time to make an image that was not there, its layers included.",
    buckets=(0.05, 0.2, 0.5, 1, 2, 5, 15, 60, 300),
)
LAYER_SECONDS = prometheus_client.Histogram(
    "lns_materializer_layer_seconds",
    "Time to take one layer apart, or to make that of mounts.",
    ["kind"],
    buckets=(0.02, 0.1, 0.5, 1, 2, 5, 15, 60, 300),
)
LAYERS = prometheus_client.Counter(
    "lns_materializer_layers",
    "Layers that images needed, by outcome: exists, made.",
    ["outcome"],
)
