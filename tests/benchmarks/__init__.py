"""Benchmarks against the alternatives a user has, each pair in one run on one machine.

`python -m tests.benchmarks` (or `make bench`) runs them; docs/benchmarks.md tells how to read what
they print and has the figures of a run. They measure and report; they never decide a test.
"""
