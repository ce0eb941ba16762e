"""Pure values and rules that every service shares: no I/O, no grpc, no logging."""
