"""The distribution API: requests with retries, manifests, blobs, tags, referrers, uploads."""
