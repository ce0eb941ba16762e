"""Budgets: what a run may use of a service, what it used, and what replies cost."""
