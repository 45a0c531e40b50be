"""The size of the data under each weighting, added up on the cluster."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from recsys_pipeline.core.interactions import Datasets, Fading, Mappings, Tables, require_known_events
from recsys_pipeline.core.scale import Scale, Weighting
from recsys_pipeline.engines.spark.frames import Scratch, collected, from_bytes
from recsys_pipeline.engines.spark.splits import SplitFrames

_SUMS = "place int, n long, sum double, squares double, least float"


def scales(
    scratch: Scratch, bm25_matrix: Tables | Datasets, mappings: Mappings, weightings: Iterable[Weighting]
) -> Mapping[Weighting, Scale]:
    """See `recsys_pipeline.engines.engine.Engine`."""
    frames = SplitFrames(scratch, bm25_matrix)
    require_known_events(mappings, frames.events)
    frames.require_something_left(mappings)
    trials = [weighting.trial() for weighting in dict.fromkeys(weightings)]
    fading = Fading.of(mappings, {trial.half_life_days for trial in trials if trial.half_life_days})
    weighed = frames.weighed(trials, fading, None)
    parts = collected(
        weighed.pairs.frame.select("weights").mapInArrow(_adder(len(weighed.weightings)), _SUMS)
    )
    found = {}
    for place, weighting in enumerate(weighed.weightings):
        own = parts.filter(pa.array(parts["place"].to_numpy() == place))
        n, total, squares = (own[name].to_numpy().sum() for name in ("n", "sum", "squares"))
        least = float(own["least"].to_numpy().min())
        root = float(np.sqrt(squares / n))
        found[weighting] = Scale(frames.n_users, frames.n_items, int(n), float(total / n), root, least)
    return found


def _adder(n_weightings: int) -> Any:
    def add(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        n = np.zeros(n_weightings, np.int64)
        totals, squares = np.zeros(n_weightings), np.zeros(n_weightings)
        least = np.full(n_weightings, np.inf, np.float32)
        for batch in batches:
            if not batch.num_rows:
                continue
            weights = from_bytes(batch["weights"], n_weightings)
            known = ~np.isnan(weights)
            n += known.sum(axis=0)
            totals += np.nansum(weights, axis=0, dtype=np.float64)
            squares += np.nansum(np.square(weights), axis=0, dtype=np.float64)
            least = np.fmin(least, np.fmin.reduce(weights, axis=0))
        columns = [np.arange(n_weightings, dtype=np.int32), n, totals, squares, least]
        names = ["place", "n", "sum", "squares", "least"]
        yield pa.record_batch([pa.array(column) for column in columns], names=names)

    return add
