"""Everything that touches a path: reading feedback, the warehouse, the releases of the model."""
