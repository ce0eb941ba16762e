"""What the boundary needs from outside: workers, the host's network, files, certificates."""
