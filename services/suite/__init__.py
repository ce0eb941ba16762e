"""The embedded default: all four services in two processes, on sockets of the user's own."""
