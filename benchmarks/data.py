"""What the measurements start from, made by the project's own steps."""

import numpy as np

from recsys_pipeline.assets.pairs import Pairs
from recsys_pipeline.core.splitting import held_out_pairs
from recsys_pipeline.core.strengths import pair_strengths
from recsys_pipeline.storage.feedback import Feedback, ingest
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


def held_out_and_pairs(feedback: str, warehouse: str) -> tuple[Pairs, np.ndarray]:
    """All pairs of a feed, and the positions of the held-out ones."""
    source, store = Feedback(path=feedback, strengths=STRENGTHS), Warehouse(path=warehouse)
    ingest(source, store, "raw_feedback", "rejected_feedback")
    pairs = Pairs.from_strengths(pair_strengths(store.open_table("raw_feedback"), source.strengths))
    return pairs, held_out_pairs(pairs.pattern, seed=42, min_interactions=3)
