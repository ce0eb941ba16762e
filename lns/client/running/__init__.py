"""Runs as a client makes, follows and ends them, above the RPCs."""
