"""Names of who puts an item into a list, as tables and manifests have them."""

ALS = "als"
BLEND = "blend"
# Of similar items alone.
GRAPH = "graph"
# Where a list is filled up.
POPULAR = "popular"
