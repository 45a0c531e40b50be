"""Scoring every trial of the grid on the held-out pairs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys_pipeline.core.metrics import K, Scores, hits_of_ranks, score
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import held_out_ranks
from recsys_pipeline.core.trials import Fit, Trial, fits_for
from recsys_pipeline.core.weighting import bm25_weights


class Checkpoint(NamedTuple):
    """The state of a fit after so many iterations.

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

    def train(self, user_items: csr_matrix, fit: Fit, seed: int) -> Iterator[Checkpoint]:
        """Yield the factors at each of the fit's checkpoints; the arrays may change afterwards."""
        ...


class TrialResult(NamedTuple):
    """What a trial scored, and the wall seconds of training that took."""

    trial: Trial
    scores: Scores
    fit_seconds: float


def search(
    pattern: Pattern,
    strengths: NDArray[np.float64],
    held_out: NDArray[np.int64],
    trials: Sequence[Trial],
    trainer: Trainer,
    seed: int,
) -> Iterator[list[TrialResult]]:
    """Score the trials, one fit at a time; what is shared between trials is computed once.

    The weights are those of all pairs, as in the notebook; training sees those that are not held out.

    Args:
        pattern: all pairs.
        strengths: (n_pairs,).
        held_out: positions of the held-out pairs, one a user at most.
        trials: what to score.
        trainer: solves each fit.
        seed: of the random start of every fit.

    Yields:
        The results of the trials that a finished fit answers.
    """
    kept = np.ones(pattern.n_pairs, dtype=bool)
    kept[held_out] = False
    training = pattern.select(kept)
    users, items = pattern.user_of_pair[held_out], pattern.indices[held_out]
    one_relevant = np.ones(len(held_out), dtype=np.int64)

    weights: dict[tuple[float, float], NDArray[np.float64]] = {}
    for fit in fits_for(trials):
        k1_and_b = (fit.bm25_k1, fit.bm25_b)
        if k1_and_b not in weights:
            weights[k1_and_b] = bm25_weights(pattern, strengths, k1=fit.bm25_k1, b=fit.bm25_b)[kept]
        results = []
        for state in trainer.train(training.user_items(weights[k1_and_b]), fit, seed):
            ranks = held_out_ranks(state.user_factors, state.item_factors, training, users, items, k=K)
            scores = score(hits_of_ranks(ranks), one_relevant)
            results.append(TrialResult(fit.trial(state.iterations), scores, state.seconds))
        yield results


def best_first(results: Sequence[TrialResult]) -> list[TrialResult]:
    """By MAP@10; among equals the cheaper model first, then the order of the grid's values."""
    return sorted(results, key=lambda result: (-result.scores.map, result.trial))
