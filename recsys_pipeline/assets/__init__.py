"""One module a stage of the graph, in the graph's own words."""
