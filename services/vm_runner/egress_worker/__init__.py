"""The egress worker: carries the bytes of one run's connections, and decides requests by rules."""
