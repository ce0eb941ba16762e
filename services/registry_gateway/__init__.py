"""Every exchange with OCI registries, and the node's blob store."""
