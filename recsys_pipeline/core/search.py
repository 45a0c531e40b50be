"""Scoring trials on the held-out pairs."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys_pipeline.core.metrics import K, Scores, hits_of_ranks, score
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import held_out_ranks
from recsys_pipeline.core.trials import Fit, Trial
from recsys_pipeline.core.weighting import bm25_weights


class Checkpoint(NamedTuple):
    """The state of a fit after so many iterations: all it takes to go on.

    Attributes:
        iterations: done since the random start.
        user_factors: (n_users, factors) float32.
        item_factors: (n_items, factors) float32.
        seconds: wall time of the training up to here.
    """

    iterations: int
    user_factors: NDArray[np.float32]
    item_factors: NDArray[np.float32]
    seconds: float


class Trainer(Protocol):
    """Whatever solves ALS."""

    def train(
        self, user_items: csr_matrix, fit: Fit, seed: int, start: Checkpoint | None = None
    ) -> Iterator[Checkpoint]:
        """Yield the factors at each of the fit's checkpoints; the arrays may change afterwards.

        Args:
            user_items: weighted users x items matrix.
            fit: what to train.
            seed: of the random start.
            start: where an earlier fit of the same trial stopped, to go on from there.
        """
        ...


class TrialResult(NamedTuple):
    """What became of a trial.

    Attributes:
        trial: what was tried.
        scores: None for a trial that failed.
        fit_seconds: wall time of the training.
        failure: why it failed, empty for one that did not.
        iterations_done: fewer than the trial's where halving stopped it; None for all of them.
    """

    trial: Trial
    scores: Scores | None
    fit_seconds: float
    failure: str = ""
    iterations_done: int | None = None


class SearchData(NamedTuple):
    """What all fits of a search share, computed once.

    Attributes:
        training: the pairs that are not held out.
        users: (n_held_out,) user index of each held-out pair.
        items: (n_held_out,) its item index.
        weights: (n_training_pairs,) float32 weights for each (K1, B).
        content: what all of this was computed from, to tell searches apart.
    """

    training: Pattern
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    weights: dict[tuple[float, float], NDArray[np.float32]]
    content: tuple[NDArray[Any], ...] = ()

    @classmethod
    def prepare(
        cls,
        pattern: Pattern,
        strengths: NDArray[np.float64],
        held_out: NDArray[np.int64],
        trials: Iterable[Trial],
    ) -> Self:
        """The data for these trials; weights are those of all pairs, as in the notebook.

        Args:
            pattern: all pairs.
            strengths: (n_pairs,).
            held_out: positions of the held-out pairs, one a user at most.
            trials: whose weights are needed.
        """
        kept = np.ones(pattern.n_pairs, dtype=bool)
        kept[held_out] = False
        weights = {
            (k1, b): bm25_weights(pattern, strengths, k1=k1, b=b)[kept].astype(np.float32)
            for k1, b in {(trial.bm25_k1, trial.bm25_b) for trial in trials}
        }
        return cls(
            training=pattern.select(kept),
            users=pattern.user_of_pair[held_out],
            items=pattern.indices[held_out],
            weights=weights,
            content=(pattern.indptr, pattern.indices, strengths, held_out),
        )


def score_fit(
    data: SearchData, fit: Fit, trainer: Trainer, seed: int, start: Checkpoint | None = None
) -> Iterator[tuple[TrialResult, Checkpoint]]:
    """Train once and score every trial of the fit on the way.

    Raises:
        FloatingPointError: the fit diverged; what was yielded before stands.
    """
    trial = fit.longest
    user_items = data.training.user_items(data.weights[trial.bm25_k1, trial.bm25_b])
    one_relevant = np.ones(len(data.users), dtype=np.int64)
    for state in trainer.train(user_items, fit, seed, start):
        ranks = held_out_ranks(
            state.user_factors, state.item_factors, data.training, data.users, data.items, k=K
        )
        scores = score(hits_of_ranks(ranks), one_relevant)
        yield TrialResult(fit.trial(state.iterations), scores, state.seconds), state


def best_first(results: Sequence[TrialResult]) -> list[TrialResult]:
    """By MAP@10; among equals the cheaper model first; what was stopped, then what failed, last."""
    return sorted(
        results,
        key=lambda result: (
            result.scores is None,
            result.iterations_done is not None,
            -result.scores.map if result.scores else 0.0,
            result.trial.factors,
            result.trial.iterations,
            result.trial,
        ),
    )
