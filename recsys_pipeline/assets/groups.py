"""The two groups in which the graph is drawn."""

PREPARE = "prepare"
MODEL = "model"
