"""What of each package quick tests run, and the least of it; `make coverage`."""
