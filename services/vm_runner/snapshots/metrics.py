"""What is counted of starts, for Prometheus."""

import prometheus_client

STARTS = prometheus_client.Counter(
    "lns_vm_runner_starts",
    "Machines of runs, by how they were had (cold, snapshot, ahead) and why no faster way was.",
    ["way", "why"],
)
SNAPSHOTS = prometheus_client.Counter(
    "lns_vm_runner_snapshots",
    "Snapshots, by what became of them: made, failed, discarded, evicted.",
    ["outcome"],
)
SNAPSHOT_BYTES = prometheus_client.Gauge(
    "lns_vm_runner_snapshot_bytes", "What snapshots take on the disk."
)
