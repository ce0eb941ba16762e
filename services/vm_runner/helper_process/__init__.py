"""What each process that serves one microVM does with itself, before it takes a guest's bytes.

File servers and egress workers stand on it: they say `ready` when they are, hold a locked pid file
by which the runner finds them again. What they give up is in `services.isolation`. It knows neither
the runner nor gRPC, and neither do they.
"""
