"""What makes this machine ready for runs: each step looks, asks, does, and says how it ended."""
