"""The lists of everybody, by workers that map the files of the model: each makes those of some users.

The arithmetic is that of the local engine, and so are the lists. Every worker has the vectors of all items in
its own memory, sorted by their length; of users and interactions it maps what it reads.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.exports import (
    recommendations_of,
    recommendations_schema,
    similar_items_of,
    similar_items_schema,
)
from recsys_pipeline.core.model import Model
from recsys_pipeline.core.offer import ByFactors, Offer, Popularity, make_lists
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.sources import ALS
from recsys_pipeline.engines.engine import ExportPlan
from recsys_pipeline.engines.spark.frames import Kept, Scratch

_LISTS_PER_BLOCK = 1024
# A worker opens the model once, whatever it makes; of many tasks the last is not far behind the others.
_BLOCKS_PER_TASK, _MOST_TASKS = 8, 4096


class _Ready(NamedTuple):
    """What a worker has at hand, for all its blocks."""

    model: Model
    offer: Offer
    popularity: Popularity
    source: ByFactors


def recommendations(scratch: Scratch, model: Model, offer: Offer, plan: ExportPlan) -> Kept:
    """The rows of `recommendations`, computed; see `recsys_pipeline.engines.engine.Engine`."""
    if plan.blend:
        raise InputError("recommendations: the Spark engine scores by `als` alone; set `scorer` to `als`.")
    schema = recommendations_schema(model.users.type, model.items.type)
    return _made(scratch, model, offer, schema, len(model.users), _by_factors, _recommended, plan.n)


def similar_items(scratch: Scratch, model: Model, offer: Offer, plan: ExportPlan) -> Kept:
    """The rows of `similar_items`, computed; see `recsys_pipeline.engines.engine.Engine`."""
    if plan.graph:
        raise InputError("similar_items: the Spark engine compares by `als` alone; set `scorer` to `als`.")
    schema = similar_items_schema(model.items.type)
    return _made(scratch, model, offer, schema, len(model.items), _by_cosine, _similar, plan.n)


def _made(
    scratch: Scratch,
    model: Model,
    offer: Offer,
    schema: pa.Schema,
    n_lists: int,
    source: Callable[[Model, Offer], ByFactors],
    make: Callable[[_Ready, NDArray[np.int32], int], pa.RecordBatch],
    n: int,
) -> Kept:
    reopen = model.reopen
    if reopen is None:
        raise InputError("RECSYS_ENGINE=spark: the model lies in no folder that the workers reach.")
    folder = scratch.path("offer")
    folder.mkdir()
    popularity = Popularity.in_model(model, offer)
    arrays = {
        "allowed": offer.allowed,
        "category": offer.category,
        "max_per_category": np.array(offer.max_per_category),
        "order": popularity.order,
        "share": popularity.share,
    }
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    arrays_of_offer = str(folder)
    n_blocks = -(-n_lists // _LISTS_PER_BLOCK)

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from threadpoolctl import threadpool_limits

        ready = _ready(reopen, arrays_of_offer, source)
        with threadpool_limits(1, "blas"):
            for batch in batches:
                for block in batch["id"].to_pylist():
                    first = block * _LISTS_PER_BLOCK
                    ids = np.arange(first, min(first + _LISTS_PER_BLOCK, n_lists), dtype=np.int32)
                    yield make(ready, ids, n)

    n_tasks = max(1, min(-(-n_blocks // _BLOCKS_PER_TASK), _MOST_TASKS))
    frame = scratch.spark.range(0, n_blocks, 1, n_tasks).mapInArrow(work, _as_spark(schema))
    return scratch.kept(frame, "lists")


def _as_spark(schema: pa.Schema) -> str:
    names = {pa.int64(): "long", pa.int32(): "int", pa.float32(): "float", pa.string(): "string"}
    return ", ".join(f"`{field.name}` {names[field.type]}" for field in schema)


# What this worker has made ready, by the folder of the offer; the last one alone.
_MADE: dict[str, _Ready] = {}


def _ready(reopen: Callable[[], Model], folder: str, source: Callable[[Model, Offer], ByFactors]) -> _Ready:
    """Opened once by a worker."""
    if folder not in _MADE:
        from recsys_pipeline.engines.local.compiling import ready

        ready("recsys_pipeline.core.selection")
        model = reopen()
        read = {path.stem: np.load(path, allow_pickle=False) for path in Path(folder).glob("*.npy")}
        offer = Offer(read["allowed"], read["category"], int(read["max_per_category"]))
        popularity = Popularity(read["order"], read["share"])
        _MADE.clear()
        _MADE[folder] = _Ready(model, offer, popularity, source(model, offer))
    return _MADE[folder]


def _by_factors(model: Model, offer: Offer) -> ByFactors:
    return ByFactors.of(model.factors, offer)


def _by_cosine(model: Model, offer: Offer) -> ByFactors:
    return ByFactors.of_cosines(model.factors.items, offer)


def _recommended(ready: _Ready, users: NDArray[np.int32], n: int) -> pa.RecordBatch:
    model = ready.model
    own = model.contents.of(users)
    exclusions = own.pattern.select(own.excluded)
    source = ready.source._replace(users=np.ascontiguousarray(model.factors.users[users]))
    rows = np.arange(len(users), dtype=np.int32)
    lists = make_lists(source, rows, exclusions, n, ready.offer, ready.popularity)
    ids = model.users.slice(int(users[0]), len(users))
    return recommendations_of(lists, ids, model.items, ALS)


def _similar(ready: _Ready, items: NDArray[np.int32], n: int) -> pa.RecordBatch:
    model = ready.model
    # No item is similar to itself.
    itself = Pattern(np.arange(len(items) + 1), items, len(model.items))
    source = ready.source._replace(users=ready.source.users[items])
    rows = np.arange(len(items), dtype=np.int32)
    lists = make_lists(source, rows, itself, n, ready.offer)
    ids = model.items.slice(int(items[0]), len(items))
    return similar_items_of(lists, ids, model.items, by_cosine=True)


def schema_of(model: Model, *, of_similar_items: bool) -> pa.Schema:
    """That of the lists of a model."""
    if of_similar_items:
        return similar_items_schema(model.items.type)
    return recommendations_schema(model.users.type, model.items.type)
