"""Credentials of the user and the integrations that use them, kept for egress workers."""
