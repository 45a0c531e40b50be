"""What every step of the graph has in common."""
