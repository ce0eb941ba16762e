"""Confinement of VMM processes: what is asked of the launcher, and what the host permits."""
