"""Harmful changes to lns, one at a time, and the tests that must notice each; `make mutants`."""
