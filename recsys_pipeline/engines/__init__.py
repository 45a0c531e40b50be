"""Who computes: an engine answers the stages of the graph, from tables to ranks and factor tables."""
