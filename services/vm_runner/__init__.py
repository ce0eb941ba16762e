"""Runs plans in microVMs: their life, their terminal, their boundary, their records."""
