"""Files of raw feedback, read as a stream of rows."""
