"""Side-by-side measurements; run by hand, never part of the tests."""
