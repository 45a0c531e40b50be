"""Shows what was made: metadata, tables, the summary; computes no metric."""
