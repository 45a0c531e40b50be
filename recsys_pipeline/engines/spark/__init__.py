"""The engine of an Apache Spark cluster: interactions, users and items stay there."""
