"""ALS on the cluster: many configurations at once, each by the steps of the solver `batched`.

`core.loss` has the loss and `engines.local.batched` the steps. A half-iteration is one pass over the blocks
of one side (`blocks`): each maps the vectors of the columns that it needs and solves its rows (`vectors`).
Those of all configurations that are trained together lie side by side, so that one pass does for all of them;
a configuration of fewer iterations is scored on the way.

Random starts are those of the local engine, row for row, wherever a row is made. The factors follow the same
path up to rounding.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.loss import confidences, penalties
from recsys_pipeline.engines.local.ensembles import seeds_of
from recsys_pipeline.engines.local.training import Fit
from recsys_pipeline.engines.spark.blocks import Block, Side
from recsys_pipeline.engines.spark.frames import Scratch, whole
from recsys_pipeline.engines.spark.side_by_side import on_workers
from recsys_pipeline.engines.spark.vectors import Vectors

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


class State(NamedTuple):
    """The vectors after so many iterations.

    Attributes:
        iterations: done.
        users: the vectors.
        items: the same.
        failed: fits whose factors are no numbers any more.
        seconds: wall time up to here.
    """

    iterations: int
    users: Vectors
    items: Vectors
    failed: frozenset[int]
    seconds: float


def train(scratch: Scratch, by_user: Side, by_item: Side, together: Together) -> Iterator[State]:
    """The state at each checkpoint of any of the fits; but the last goes when the next is asked for."""
    begin = time.perf_counter()
    users = _start(scratch, by_user, by_item, 0, together)
    items = _start(scratch, by_item, by_user, by_user.rows.n_rows, together)
    stops = sorted({stop for fit in together.fits for stop in fit.checkpoints})
    waited = 0.0
    for iteration in range(1, stops[-1] + 1):
        users = _half(scratch, by_user, by_item, users, items, together)
        items = _half(scratch, by_item, by_user, items, users, together)
        if iteration in stops:
            failed = _failed(users, together) | _failed(items, together)
            lasted = time.perf_counter() - begin - waited
            since = time.perf_counter()
            yield State(iteration, users, items, failed, lasted)
            waited += time.perf_counter() - since


def _failed(vectors: Vectors, together: Together) -> frozenset[int]:
    """Fits whose vectors are no numbers any more."""
    models = zip(together.models, _grams(vectors, together), strict=True)
    return frozenset(model.fit for model, gram in models if not np.isfinite(gram).all())


def _grams(vectors: Vectors, together: Together) -> list[NDArray[np.float64]]:
    """Of each model, (factors, factors) the sum of the outer products of all its vectors."""
    sizes = [model.trial.factors for model in together.models]
    ends = np.cumsum([size * size for size in sizes])
    split = np.split(vectors.total(), ends[:-1])
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


def _new(
    scratch: Scratch,
    side: Side,
    other: Side,
    together: Together,
    vectors_of: Callable[[int], NDArray[np.float32]],
) -> Vectors:
    """The vectors of a side, each block made by a worker, with copies for the blocks of the other side."""
    new = Vectors(str(scratch.shared_folder("vectors")), side.rows, together.width, len(other.filled))

    def make(number: int) -> None:
        vectors = vectors_of(number)
        copies = []
        for reader in other.filled:
            block = Block.read(other.folder, reader)
            needed = block.needed[block.begins[number] : block.begins[number + 1]]
            copies.append(side.rows.place_of(needed))
        new.write(number, vectors, copies, _gram(vectors, together))

    on_workers(scratch, make, side.rows.n_blocks)
    new.add_up()
    return new


def _start(scratch: Scratch, side: Side, other: Side, before: int, together: Together) -> Vectors:
    """Random vectors of the rows, which follow `before` others: those of `random_start`."""
    starts = [(model.seed, model.trial.factors, model.part) for model in together.models]

    def make(number: int) -> NDArray[np.float32]:
        runs = side.rows.runs_of(number)
        return np.concatenate(
            [random_rows(starts, begin, end - begin, before, together.width) for begin, end in runs]
        )

    return _new(scratch, side, other, together, make)


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


def _half(
    scratch: Scratch, side: Side, other: Side, solved: Vectors, fixed: Vectors, together: Together
) -> Vectors:
    """New vectors of the rows of a side; the old ones are gone."""
    shares = scratch.shared_folder("shares")
    pieces = side.pieces

    def share(place: int) -> None:
        block = Block.read(side.folder, pieces[place])
        columns = _columns(block, side.filled.index(pieces[place]), fixed)
        with whole(_share_path(shares, pieces[place])) as path:
            shares_of(block, columns, together).tofile(path)

    def solve(number: int) -> NDArray[np.float32]:
        before = solved.of_block(number)
        # Rows without interactions have no factors.
        found = np.zeros_like(before)
        grams = _grams(fixed, together)
        if number in side.filled:
            block = Block.read(side.folder, number)
            columns = _columns(block, side.filled.index(number), fixed)
            places = side.rows.place_of(block.rows)
            found[places] = solve_block(block, columns, before[places], side.columns.n_rows, grams, together)
        cut = side.cut_rows[side.rows.block_of(side.cut_rows) == number]
        for row, place in zip(cut, side.rows.place_of(cut), strict=True):
            summed = _summed(side, shares, row, together)
            found[place] = solve_cut_row(summed, before[place], side.columns.n_rows, grams, together)
        return found

    on_workers(scratch, share, len(pieces))
    new = _new(scratch, side, other, together, solve)
    shutil.rmtree(shares, ignore_errors=True)
    solved.remove()
    return new


def _columns(block: Block, reader: int, fixed: Vectors) -> Callable[[slice], NDArray[np.float32]]:
    """Gives (n_needed, factors) of the vectors that a block needs the part of a model."""
    copies = [fixed.copies_of(number, reader) for number in range(fixed.spread.n_blocks)]
    assert sum(map(len, copies)) == len(block.needed)
    return lambda part: np.concatenate([each[:, part] for each in copies])


def _share_path(folder: Path, number: int) -> str:
    return f"{folder}/{number}.shares"


def _summed(side: Side, shares: Path, row: int, together: Together) -> NDArray[np.float64]:
    """The normal equations of a row: the shares of its pieces, added up."""
    size = sum(model.trial.factors * (model.trial.factors + 1) + 1 for model in together.models)
    total = np.zeros(size)
    for number in side.pieces:
        rows = Block.read(side.folder, number).rows
        place = int(np.searchsorted(rows, row))
        if place < len(rows) and rows[place] == row:
            total += np.fromfile(_share_path(shares, number), np.float64, size, offset=place * size * 8)
    return total


def solve_block(
    block: Block,
    columns: Callable[[slice], NDArray[np.float32]],
    own: NDArray[np.float32],
    n_columns: int,
    grams: Sequence[NDArray[np.float64]],
    together: Together,
) -> NDArray[np.float32]:
    """(n_rows, width) the vectors of the rows of a block after the steps of `engines.local.batched`.

    Args:
        block: the interactions.
        columns: gives (n_needed, factors) the part of a model of the vectors of the columns.
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
                columns(model.part) @ turn,
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


def shares_of(
    block: Block, columns: Callable[[slice], NDArray[np.float32]], together: Together
) -> NDArray[np.float64]:
    """(n_rows, size) of each row of a block of pieces, its share of the normal equations of every model.

    Of a model these are the matrix, the right-hand side and the number of interactions, one after another.
    """
    shares = []
    for model in together.models:
        indptr, places, weights = _trained(block, model.weighting)
        confidence = confidences(weights, model.trial).astype(np.float64)
        unobserved = model.trial.unobserved_weight
        fixed = columns(model.part)
        of_model = []
        for begin, end in pairwise(indptr):
            size = model.trial.factors
            matrix, right = np.zeros((size, size)), np.zeros(size)
            for first in range(begin, end, _ROWS_PER_BATCH):
                some = slice(first, min(first + _ROWS_PER_BATCH, end))
                rows = fixed[places[some]].astype(np.float64)
                matrix += (rows * (confidence[some] - unobserved)[:, None]).T @ rows
                right += confidence[some] @ rows
            of_model.append(np.concatenate([matrix.ravel(), right, [float(end - begin)]]))
        shares.append(np.stack(of_model))
    return np.concatenate(shares, axis=1)


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
