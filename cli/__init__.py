"""The `lns` command: a client of the four services that orchestrates and renders."""
