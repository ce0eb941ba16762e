"""The materializer's ways to the world: disk, catalogue, worker processes, the gateway."""
