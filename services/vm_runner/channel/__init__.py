"""The channel between host and guest: frames, messages, streams, and a session over them.

It knows nothing of runs; `docs/guest-protocol.md` has its rules.
"""
