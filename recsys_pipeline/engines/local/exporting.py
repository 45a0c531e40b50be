"""The lists of everybody as a stream: blocks of users on all cores, in order, so many at a time.

By threads: the products of matrices and the compiled loops let go of the interpreter. Memory is bounded by
the blocks, whatever the number of users: of scores a block holds some million at a time.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from recsys_pipeline.core.blending import terms_of
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
from recsys_pipeline.core.ranking import SCORES_AT_ONCE, Scorer
from recsys_pipeline.core.sources import ALS, BLEND
from recsys_pipeline.engines.engine import ExportPlan
from recsys_pipeline.engines.local.aggregation import in_equal_parts
from recsys_pipeline.engines.local.compiling import ready
from recsys_pipeline.machine.cores import usable_cores
from recsys_pipeline.machine.memory import memory_limit

_LISTS_PER_BLOCK = 1024
# Blocks that are being made or wait for their turn, for each thread.
_BLOCKS_PER_THREAD = 2
# Of what is handed on: a row group of the file.
_ROWS_AT_ONCE = 1 << 20
# Of a thread: its scores, those of the terms while they are made, and what is compared with them.
_BYTES_PER_THREAD = 4 * 4 * SCORES_AT_ONCE

MakeBlock = Callable[[NDArray[np.int32]], pa.RecordBatch]


def recommendations(model: Model, offer: Offer, plan: ExportPlan) -> pa.RecordBatchReader:
    """See `recsys_pipeline.engines.engine.Engine`."""
    blend = model.blend if plan.blend else None
    if plan.blend and not blend:
        raise InputError(
            "recommendations: `scorer` is `blend`, and the model has none. Set `blend` of "
            "grid_search_results to true and materialize it again with what follows it, or set `scorer` to "
            "`als`."
        )
    exclusions, popularity = model.exclusions, Popularity.in_model(model, offer)
    model.factors.require_finite()
    if blend and blend.filter:
        ready("recsys_pipeline.core.graph_loops")
    source: ByFactors | Scorer = (
        terms_of(model.factors, model.history, blend.filter, model.graph_rows(blend)).scorer(blend)
        if blend
        else ByFactors.of(model.factors, offer)
    )

    def make(users: NDArray[np.int32]) -> pa.RecordBatch:
        lists = make_lists(source, users, exclusions, plan.n, offer, popularity)
        ids = model.users.slice(int(users[0]), len(users))
        return recommendations_of(lists, ids, model.items, BLEND if plan.blend else ALS)

    schema = recommendations_schema(model.users.type, model.items.type)
    return _stream(schema, len(model.users), make, plan)


def similar_items(model: Model, offer: Offer, plan: ExportPlan) -> pa.RecordBatchReader:
    """See `recsys_pipeline.engines.engine.Engine`."""
    source: ByFactors | Scorer
    if plan.graph:
        graph = model.item_graph
        if not graph:
            raise InputError(
                "similar_items: `scorer` is `graph`, and the model has no item graph. Materialize "
                "grid_search_results again, by a search that has one, with what follows it, or set `scorer` "
                "to `als`."
            )
        ready("recsys_pipeline.core.graph_loops")
        source = graph.neighbours()
    else:
        model.factors.require_finite()
        source = ByFactors.of_cosines(model.factors.items, offer)
    n_items = len(model.items)
    # No item is similar to itself.
    itself = Pattern(np.arange(n_items + 1), np.arange(n_items, dtype=np.int32), n_items)

    def make(of_items: NDArray[np.int32]) -> pa.RecordBatch:
        lists = make_lists(source, of_items, itself, plan.n, offer)
        ids = model.items.slice(int(of_items[0]), len(of_items))
        return similar_items_of(lists, ids, model.items, by_cosine=not plan.graph)

    return _stream(similar_items_schema(model.items.type), n_items, make, plan)


def _stream(schema: pa.Schema, n_lists: int, make: MakeBlock, plan: ExportPlan) -> pa.RecordBatchReader:
    """The rows of all lists, in order; they are made while they are read."""
    n_threads = max(1, min(usable_cores(), memory_limit(plan.memory_limit) // _BYTES_PER_THREAD))
    blocks = (
        np.arange(first, min(first + _LISTS_PER_BLOCK, n_lists), dtype=np.int32)
        for first in range(0, n_lists, _LISTS_PER_BLOCK)
    )

    def batches() -> Iterator[pa.RecordBatch]:
        ready("recsys_pipeline.core.selection")
        # Threads of BLAS within ours would only get into each other's way.
        with threadpool_limits(1, "blas"):
            yield from in_equal_parts(_in_order(make, blocks, n_threads), _ROWS_AT_ONCE)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _in_order(
    make: MakeBlock, blocks: Iterator[NDArray[np.int32]], n_threads: int
) -> Iterator[pa.RecordBatch]:
    """What is made of each block, in the order of the blocks; no more of them at a time than can be used."""
    waiting: deque[Future[pa.RecordBatch]] = deque()
    with ThreadPoolExecutor(n_threads) as threads:
        try:
            for block in blocks:
                waiting.append(threads.submit(make, block))
                if len(waiting) >= n_threads * _BLOCKS_PER_THREAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
