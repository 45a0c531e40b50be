"""The arithmetic: arrays in, arrays out; no Dagster, no disk, no clock, no global randomness."""
