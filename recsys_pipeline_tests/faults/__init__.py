"""Faults injected into real runs: what a reader sees afterwards, and whether the next run heals."""
