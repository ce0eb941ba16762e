"""Integrations: which hosts a service has, and where a request carries its credential."""
