"""From the bytes of an OCI layer to an object pack and a list of entries, in one pass."""
