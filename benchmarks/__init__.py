"""Measurements side by side, run by hand; no part of the tests."""
