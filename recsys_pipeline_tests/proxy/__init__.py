"""What stands in front of the UI: `make proxy`."""
