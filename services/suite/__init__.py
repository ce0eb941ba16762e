"""The embedded default: all four services in one process, on one socket of the user's own."""
