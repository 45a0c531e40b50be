"""ALS on the cluster: many configurations at once, each by the steps of the solver `batched`.

`core.loss` has the loss and `engines.local.batched` the steps. A half-iteration is one pass over the blocks
of one side (`blocks`): each gets the vectors of the columns that it needs and solves its rows. The vectors of
all configurations that are trained together travel side by side, so that a pass costs its shuffles once for
all of them; a configuration of fewer iterations is scored on the way.

Random starts are those of the local engine, row for row, wherever a row is made. The factors follow the same
path up to rounding.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyspark.sql.functions as sf
from numpy.typing import NDArray

from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.loss import confidences, penalties
from recsys_pipeline.engines.local.ensembles import seeds_of
from recsys_pipeline.engines.local.training import Fit
from recsys_pipeline.engines.spark.blocks import Block, Side
from recsys_pipeline.engines.spark.frames import Kept, Scratch, as_bytes, from_bytes

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

VECTORS = "index int, vector binary"
_SOLVED = "index int, vector binary, kind int"
# Kinds of rows: vectors, sums of their outer products, shares of the normal equations of rows that are cut.
_VECTOR, _GRAM, _SHARE = range(3)
_CG_STEPS = 3
_CONVERGED = 1e-20
_ROWS_PER_BATCH = 1 << 12
_STARTED = 0.01


class Model(NamedTuple):
    """A model among those that are trained together.

    Attributes:
        fit: whose it is, by its place among them.
        trial: with the most iterations.
        weighting: place of its weights in a block.
        seed: of its random start.
        first: place of its first factor in a vector.
    """

    fit: int
    trial: Hyperparameters
    weighting: int
    seed: int
    first: int

    @property
    def part(self) -> slice:
        """Its factors in a vector."""
        return slice(self.first, self.first + self.trial.factors)


class Together(NamedTuple):
    """Fits that are trained together.

    Attributes:
        fits: of which the trials are known.
        models: one a fit, or several where that is an ensemble.
        width: floats of a vector.
    """

    fits: Sequence[Fit]
    models: Sequence[Model]
    width: int

    @classmethod
    def of(cls, fits: Sequence[Fit], weighting_of: Callable[[Hyperparameters], int], seed: int) -> "Together":
        """Side by side in this order."""
        models: list[Model] = []
        width = 0
        for place, fit in enumerate(fits):
            for own in seeds_of(fit.longest, seed):
                models.append(Model(place, fit.longest, weighting_of(fit.longest), own, width))
                width += fit.longest.factors
        return cls(fits, models, width)

    def part(self, fit: int) -> slice:
        """The factors of a fit in a vector."""
        own = [model.part for model in self.models if model.fit == fit]
        return slice(own[0].start, own[-1].stop)


class Vectors(NamedTuple):
    """The vectors of one side.

    Attributes:
        rows: index and vector.
        grams: of each model, (factors, factors) the sum of the outer products of its vectors.
    """

    rows: Kept
    grams: Sequence[NDArray[np.float64]]

    def remove(self) -> None:
        """Nobody reads them any more."""
        self.rows.remove()


class State(NamedTuple):
    """The vectors after so many iterations.

    Attributes:
        iterations: done.
        users: index and vector.
        items: the same.
        failed: fits whose factors are no numbers any more.
        seconds: wall time up to here.
    """

    iterations: int
    users: Kept
    items: Kept
    failed: frozenset[int]
    seconds: float


def train(scratch: Scratch, by_user: Side, by_item: Side, together: Together) -> Iterator[State]:
    """The state at each checkpoint of any of the fits; but the last goes when the next is asked for."""
    begin = time.perf_counter()
    users = _kept(scratch, _start(scratch, by_user.n_rows, 0, together), together)
    items = _kept(scratch, _start(scratch, by_item.n_rows, by_user.n_rows, together), together)
    stops = sorted({stop for fit in together.fits for stop in fit.checkpoints})
    waited = 0.0
    for iteration in range(1, stops[-1] + 1):
        users = _half(scratch, by_user, users, items, together)
        items = _half(scratch, by_item, items, users, together)
        if iteration in stops:
            failed = _failed(users, together) | _failed(items, together)
            lasted = time.perf_counter() - begin - waited
            since = time.perf_counter()
            yield State(iteration, users.rows, items.rows, failed, lasted)
            waited += time.perf_counter() - since


def _failed(vectors: Vectors, together: Together) -> frozenset[int]:
    """Fits whose vectors are no numbers any more."""
    models = zip(together.models, vectors.grams, strict=True)
    return frozenset(model.fit for model, gram in models if not np.isfinite(gram).all())


def _kept(scratch: Scratch, frame: "DataFrame", together: Together) -> Vectors:
    """Vectors with the sums of their outer products, which came as rows of their own."""
    rows, sums = scratch.kept_by_kind(frame, "vectors", 2)
    return Vectors(rows, _summed([sums], together))


def _summed(parts: Sequence[Kept], together: Together) -> list[NDArray[np.float64]]:
    sizes = [model.trial.factors for model in together.models]
    whole = np.zeros(sum(size * size for size in sizes))
    for part in parts:
        # One after the other, however many blocks there are.
        for batch in part.batches(pa.schema([("vector", pa.binary())])):
            for each in batch["vector"]:
                whole += np.frombuffer(each.as_buffer(), np.float64)
    ends = np.cumsum([size * size for size in sizes])
    split = np.split(whole, ends[:-1])
    return [each.reshape(size, size) for each, size in zip(split, sizes, strict=True)]


def _gram(vectors: NDArray[np.float32], together: Together) -> NDArray[np.float64]:
    """The sums of the outer products of these vectors, of all models one after another."""
    sums = []
    for model in together.models:
        total = np.zeros((model.trial.factors, model.trial.factors))
        for first in range(0, len(vectors), _ROWS_PER_BATCH):
            rows = vectors[first : first + _ROWS_PER_BATCH, model.part]
            total += rows.T @ rows  # 32 bits within some rows, 64 across
        sums.append(total.ravel())
    return np.concatenate(sums)


def _start(scratch: Scratch, n_rows: int, before: int, together: Together) -> "DataFrame":
    """Random vectors of `n_rows` rows that follow `before` others: those of `random_start`."""
    starts = [(model.seed, model.trial.factors, model.part) for model in together.models]

    def make(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = batch["id"].to_numpy()
            for first in range(0, len(rows), _ROWS_PER_BATCH):
                some = rows[first : first + _ROWS_PER_BATCH]
                if len(some):
                    vectors = random_rows(starts, int(some[0]), len(some), before, together.width)
                    yield from _solved(some, vectors, together).to_batches()

    return scratch.spark.range(n_rows).mapInArrow(make, _SOLVED)


def random_rows(
    starts: Sequence[tuple[int, int, slice]], first: int, n_rows: int, before: int, width: int
) -> NDArray[np.float32]:
    """(n_rows, width) what the generator of each seed gives these rows, without those before them.

    Two float32 come out of each step of the generator.
    """
    made = np.empty((n_rows, width), np.float32)
    for seed, factors, part in starts:
        begin = (before + first) * factors
        bits = np.random.PCG64(seed)
        bits.advance(begin // 2)
        odd = begin % 2
        drawn = np.random.Generator(bits).random(odd + n_rows * factors, dtype=np.float32)[odd:]
        made[:, part] = drawn.reshape(n_rows, factors) * np.float32(_STARTED)
    return made


def _half(scratch: Scratch, side: Side, solved: Vectors, fixed: Vectors, together: Together) -> Vectors:
    """New vectors of the rows of a side; the old ones are gone."""
    n_blocks, cut = side.n_blocks, side.cut_rows
    sent = fixed.rows.frame.join(side.routes.frame, "index").select(
        "block", sf.lit(False).alias("is_own"), "index", "vector"
    )
    block = sf.pmod(sf.col("index"), sf.lit(n_blocks)).cast("int").alias("block")
    own = solved.rows.frame.select(block, sf.lit(True).alias("is_own"), "index", "vector")
    solver = _solver(side, fixed.grams, together)
    found = sent.unionByName(own).groupBy("block").applyInArrow(solver, _SOLVED)
    if not len(cut):
        new = _kept(scratch, found, together)
    else:
        rows, sums, shares = scratch.kept_by_kind(found, "parts", 3)
        before = solved.rows.frame.filter(sf.col("index").isin(cut.tolist()))
        of_cut = shares.frame.groupBy("index").cogroup(before.groupBy("index"))
        of_cut = of_cut.applyInArrow(_summing_solver(side.n_columns, fixed.grams, together), _SOLVED)
        more = scratch.kept_by_kind(of_cut, "vectors-of-cut-rows", 2)
        whole = scratch.kept(rows.frame.unionByName(more[0].frame), "vectors")
        new = Vectors(whole, _summed([sums, more[1]], together))
        for used in (rows, sums, shares, *more):
            used.remove()
    solved.remove()
    return new


def _solver(side: Side, grams: Sequence[NDArray[np.float64]], together: Together) -> Any:
    """What a worker does with the vectors that a block needs, and those of its rows."""
    folder, filled, n_columns, cut = str(side.folder), side.filled, side.n_columns, side.cut_rows

    def solve(key: tuple[Any, ...], vectors: pa.Table) -> pa.Table:
        number = key[0].as_py()
        is_own = vectors["is_own"].to_numpy(zero_copy_only=False)
        index = vectors["index"].to_numpy()
        own = vectors.filter(pa.array(is_own))
        own_index, own_vectors = index[is_own], from_bytes(own["vector"], together.width)
        keep = ~np.isin(own_index, cut)
        order = np.argsort(own_index[keep])
        own_index, own_vectors = own_index[keep][order], own_vectors[keep][order]
        if number not in filled:
            # Rows without interactions have no factors.
            return _solved(own_index, np.zeros_like(own_vectors), together)
        block = Block.read(folder, number)
        sent_index = index[~is_own]
        sent = from_bytes(vectors.filter(pa.array(~is_own))["vector"], together.width)
        fixed = np.empty_like(sent)
        fixed[np.searchsorted(block.needed, sent_index)] = sent
        if block.is_cut:
            return _rows(block.rows, shares_of(block, fixed, together), _SHARE)
        solved = np.zeros_like(own_vectors)
        places = np.searchsorted(own_index, block.rows)
        solved[places] = solve_block(block, fixed, own_vectors[places], n_columns, grams, together)
        return _solved(own_index, solved, together)

    return solve


def _rows(index: NDArray[np.integer], vectors: NDArray[Any], kind: int) -> pa.Table:
    return pa.table(
        {
            "index": pa.array(index.astype(np.int32)),
            "vector": as_bytes(vectors),
            "kind": pa.array(np.full(len(index), kind, np.int32)),
        }
    )


def _solved(index: NDArray[np.integer], vectors: NDArray[np.float32], together: Together) -> pa.Table:
    """The vectors, and the sums of their outer products in a row of its own."""
    gram = _rows(np.array([-1]), _gram(vectors, together)[None], _GRAM)
    return pa.concat_tables([_rows(index, vectors, _VECTOR), gram])


def solve_block(
    block: Block,
    fixed: NDArray[np.float32],
    own: NDArray[np.float32],
    n_columns: int,
    grams: Sequence[NDArray[np.float64]],
    together: Together,
) -> NDArray[np.float32]:
    """(n_rows, width) the vectors of the rows of a block after the steps of `engines.local.batched`.

    Args:
        block: the interactions.
        fixed: (n_needed, width) vectors of the columns.
        own: (n_rows, width) vectors of the rows before.
        n_columns: of the matrix.
        grams: of each model, that of all vectors of the columns.
        together: the models.
    """
    # On a worker the loops are compiled, or read, when they are first needed.
    from threadpoolctl import threadpool_limits

    from recsys_pipeline.engines.local.compiling import ready

    kernels = ready("recsys_pipeline.engines.local.kernels")
    solved = np.empty_like(own)
    patterns: dict[int, tuple[NDArray[Any], ...]] = {}
    with threadpool_limits(1, "blas"):
        for model, gram in zip(together.models, grams, strict=True):
            if not np.isfinite(gram).all():
                solved[:, model.part] = np.nan
                continue
            if model.weighting not in patterns:
                patterns[model.weighting] = _trained(block, model.weighting)
            indptr, places, weights = patterns[model.weighting]
            eigenvalues, axes = np.linalg.eigh(gram)
            spectrum, turn = np.maximum(eigenvalues, 0).astype(np.float32), axes.astype(np.float32)
            unobserved = np.float32(model.trial.unobserved_weight)
            vectors = own[:, model.part] @ turn
            kernels.solve_rows(
                indptr,
                places,
                confidences(weights, model.trial),
                fixed[:, model.part] @ turn,
                unobserved * spectrum,
                unobserved,
                penalties(np.diff(indptr), n_columns, model.trial),
                _CG_STEPS,
                vectors,
            )
            solved[:, model.part] = vectors @ turn.T
    return solved


def _trained(block: Block, weighting: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Row pointers, places and weights of what a setting trains on."""
    weights = block.weights[:, weighting]
    kept = ~np.isnan(weights)
    counted = np.concatenate([[0], np.cumsum(kept)])
    indptr = counted[block.indptr].astype(np.int32)
    return indptr, np.ascontiguousarray(block.places[kept]), np.ascontiguousarray(weights[kept])


def shares_of(block: Block, fixed: NDArray[np.float32], together: Together) -> NDArray[np.float64]:
    """(n_rows, size) of each row of a block of pieces, its share of the normal equations of every model.

    Of a model these are the matrix, the right-hand side and the number of interactions, one after another.
    """
    shares = []
    for model in together.models:
        indptr, places, weights = _trained(block, model.weighting)
        confidence = confidences(weights, model.trial).astype(np.float64)
        unobserved = model.trial.unobserved_weight
        of_model = []
        for begin, end in pairwise(indptr):
            size = model.trial.factors
            matrix, right = np.zeros((size, size)), np.zeros(size)
            for first in range(begin, end, _ROWS_PER_BATCH):
                some = slice(first, min(first + _ROWS_PER_BATCH, end))
                rows = fixed[places[some], model.part].astype(np.float64)
                matrix += (rows * (confidence[some] - unobserved)[:, None]).T @ rows
                right += confidence[some] @ rows
            of_model.append(np.concatenate([matrix.ravel(), right, [float(end - begin)]]))
        shares.append(np.stack(of_model))
    return np.concatenate(shares, axis=1)


def _summing_solver(n_columns: int, grams: Sequence[NDArray[np.float64]], together: Together) -> Any:
    def solve(key: tuple[Any, ...], shares: pa.Table, before: pa.Table) -> pa.Table:
        summed = sum(
            np.frombuffer(each.as_buffer(), np.float64) for each in shares["vector"].combine_chunks()
        )
        (own,) = from_bytes(before["vector"], together.width)
        solved = solve_cut_row(np.asarray(summed), own, n_columns, grams, together)
        return _solved(np.array([key[0].as_py()]), solved[None], together)

    return solve


def solve_cut_row(
    summed: NDArray[np.float64],
    own: NDArray[np.float32],
    n_columns: int,
    grams: Sequence[NDArray[np.float64]],
    together: Together,
) -> NDArray[np.float32]:
    """(width,) the vector of a row whose shares were summed: the same steps, with the matrix at hand."""
    solved = np.empty_like(own)
    first = 0
    for model, gram in zip(together.models, grams, strict=True):
        size = model.trial.factors
        matrix = summed[first : first + size * size].reshape(size, size)
        first += size * size
        right, count = summed[first : first + size], summed[first + size]
        first += size + 1
        ridge = float(penalties(np.array([int(count)]), n_columns, model.trial)[0])
        whole = matrix + model.trial.unobserved_weight * gram + ridge * np.eye(size)
        x = own[model.part].astype(np.float64)
        solved[model.part] = _conjugate_gradient(whole, right, x) if count else 0.0
    return solved


def _conjugate_gradient(
    matrix: NDArray[np.float64], right: NDArray[np.float64], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    residual = right - matrix @ x
    direction, squared = residual.copy(), residual @ residual
    if squared < _CONVERGED:
        return x
    for _ in range(_CG_STEPS):
        product = matrix @ direction
        length = squared / (direction @ product)
        x = x + length * direction
        residual = residual - length * product
        remaining = residual @ residual
        if remaining < _CONVERGED:
            break
        direction = residual + (remaining / squared) * direction
        squared = remaining
    return x


def fit_together(fits: Sequence[Fit], most_width: int) -> Iterator[list[Fit]]:
    """The fits in groups whose vectors are no wider than that, but for a single fit that is."""
    group: list[Fit] = []
    for fit in fits:
        if group and sum(each.longest.width for each in [*group, fit]) > most_width:
            yield group
            group = []
        group.append(fit)
    if group:
        yield group


def by_weighting(
    weightings: Sequence[Any], of: Callable[[Hyperparameters], Any]
) -> Callable[[Hyperparameters], int]:
    """The place of the weights of a trial among these."""
    places: Mapping[Any, int] = {weighting: place for place, weighting in enumerate(weightings)}
    return lambda trial: places[of(trial)]
