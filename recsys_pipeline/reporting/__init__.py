"""Shows what was made and how far a search is; computes no metric."""
