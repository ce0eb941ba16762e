"""Connections of runs that have no network card: ports on the host, and calls to peers."""
