"""The lns services: one package each, plus core (pure rules) and chassis (process base)."""
