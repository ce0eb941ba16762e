"""The lns services: one package a service, plus core (pure values and rules) and chassis (process base)."""
