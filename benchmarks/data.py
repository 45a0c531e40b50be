"""The data that the benchmarks start from, prepared by the project's own steps."""

import numpy as np

from recsys_pipeline.core.interactions import Interactions
from recsys_pipeline.core.splitting import leave_one_out
from recsys_pipeline.engines.local.aggregation import interaction_strengths
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.ingest import ingest
from recsys_pipeline.storage.warehouse import Warehouse

# The events of the public logs that the benchmarks are run on, besides the notebook's.
STRENGTHS = {
    "view": 1.0,
    "query_search": 2.0,
    "click": 3.0,
    "compare": 4.0,
    "cart": 2.0,
    "buy": 3.0,
    "checkin": 1.0,
}


def held_out_interactions(feedback: str, warehouse: str) -> tuple[Interactions, np.ndarray]:
    """All interactions of a feed, and the positions of the held-out ones."""
    source, store = Feedback(path=feedback, strengths=STRENGTHS), Warehouse(path=warehouse)
    ingest(source, store, "raw_feedback", "rejected_feedback")
    strengths = interaction_strengths(store.open_table("raw_feedback"), source.strengths)
    interactions = Interactions.from_strengths(strengths.read_all())
    return interactions, leave_one_out(interactions.pattern, seed=42, min_interactions=3)
