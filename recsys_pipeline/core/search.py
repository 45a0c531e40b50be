"""Scoring trials on the held-out pairs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys_pipeline.core.holdout import Holdout
from recsys_pipeline.core.metrics import K, Scores, group_pairs, hits_of_groups, score
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import held_out_ranks
from recsys_pipeline.core.trials import DEFAULT_STRENGTHS, NO_WEIGHTING, Fit, Trial, WeightKey
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
        ranks: (n_held_out,) of the held-out pairs of all splits; K + 1 is beyond K.
    """

    trial: Trial
    scores: Scores | None
    fit_seconds: float
    failure: str = ""
    iterations_done: int | None = None
    ranks: NDArray[np.uint8] | None = None


class SplitData(NamedTuple):
    """What all fits of a split share.

    Attributes:
        training: the pairs that each mapping of the strengths leaves for training.
        weights: (n_training_pairs,) float32 weights of those pairs.
        seen: the pairs that hide their item from recommendation.
        users: (n_held_out,) user index of each held-out pair; see `Holdout`.
        items: (n_held_out,) its item index.
    """

    training: dict[str, Pattern]
    weights: dict[WeightKey, NDArray[np.float32]]
    seen: Pattern
    users: NDArray[np.int32]
    items: NDArray[np.int32]

    @classmethod
    def prepare(
        cls, pattern: Pattern, holdout: Holdout, keys: Iterable[WeightKey], *, weigh_all_pairs: bool
    ) -> Self:
        """The data of one split, weighed as these keys say.

        Args:
            pattern: all pairs.
            holdout: the split.
            keys: which weights are needed.
            weigh_all_pairs: take idf and lengths from all pairs, as the notebook does, not from those that
                are left for training.
        """
        training: dict[str, Pattern] = {}
        kept: dict[str, NDArray[np.bool_]] = {}
        for name, left in holdout.left.items():
            kept[name] = left > 0
            same = next((other for other in training if np.array_equal(kept[name], kept[other])), None)
            training[name] = training[same] if same else pattern.select(kept[name])
        weights = {}
        for name, weighting, k1, b in set(keys):
            left = holdout.left[name]
            if weighting == NO_WEIGHTING:
                found = left[kept[name]]
            elif weigh_all_pairs:
                known = holdout.strengths[name] > 0
                corpus = pattern if known.all() else pattern.select(known)
                weighed = bm25_weights(
                    corpus, holdout.strengths[name][known], k1=k1, b=b, weighed=left[known]
                )
                found = weighed[kept[name][known]]
            else:
                found = bm25_weights(training[name], left[kept[name]], k1=k1, b=b)
            weights[name, weighting, k1, b] = found.astype(np.float32)
        return cls(training, weights, pattern.select(holdout.seen), holdout.users, holdout.items)

    def user_items(self, trial: Trial) -> csr_matrix:
        """The weighted users x items matrix that a trial trains on."""
        return self.training[trial.strengths].user_items(self.weights[trial.weights])


class SearchData(NamedTuple):
    """What all fits of a search share, computed once.

    Attributes:
        splits: at least one.
        content: what all of this was computed from, to tell searches apart.
        content_of_mappings: the same of each mapping of the strengths; one is the default.
    """

    splits: Sequence[SplitData]
    content: Sequence[NDArray[Any]] = ()
    content_of_mappings: Mapping[str, Sequence[NDArray[Any]]] = {}

    @classmethod
    def prepare(cls, pattern: Pattern, holdouts: Sequence[Holdout], trials: Iterable[Trial]) -> Self:
        """The data for these trials; weights are those of all pairs, as in the notebook."""
        keys = {trial.weights for trial in trials}
        splits = [SplitData.prepare(pattern, holdout, keys, weigh_all_pairs=True) for holdout in holdouts]
        content: list[NDArray[Any]] = [pattern.indptr, pattern.indices]
        for holdout in holdouts:
            content += [holdout.users, holdout.items, holdout.seen]
            content += [holdout.strengths[DEFAULT_STRENGTHS], holdout.left[DEFAULT_STRENGTHS]]
        content_of_mappings = {
            name: [holdouts[0].strengths[name], *(holdout.left[name] for holdout in holdouts)]
            for name in holdouts[0].left
        }
        return cls(splits, content, content_of_mappings)

    def groups(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Group of each held-out pair and user of each group, over all splits: see `group_pairs`."""
        split = np.repeat(np.arange(len(self.splits)), [len(data.users) for data in self.splits])
        return group_pairs(split, np.concatenate([data.users for data in self.splits]))


def score_fit(
    data: SearchData,
    fit: Fit,
    trainer: Trainer,
    seed: int,
    starts: Sequence[Checkpoint] | None = None,
) -> Iterator[tuple[TrialResult, list[Checkpoint]]]:
    """Train once a split and score every trial of the fit on the way.

    Args:
        data: what to train and score on.
        fit: what to train.
        trainer: who trains.
        seed: of the random starts.
        starts: where earlier fits of the same trial stopped, one a split.

    Raises:
        FloatingPointError: the fit diverged; what was yielded before stands.
    """
    group, user = data.groups()
    n_relevant = np.bincount(group)
    training = [
        trainer.train(split.user_items(fit.longest), fit, seed, starts[number] if starts else None)
        for number, split in enumerate(data.splits)
    ]
    for states in zip(*training, strict=True):
        ranks = np.concatenate(
            [
                held_out_ranks(
                    state.user_factors, state.item_factors, split.seen, split.users, split.items, k=K
                )
                for state, split in zip(states, data.splits, strict=True)
            ]
        ).astype(np.uint8)
        scores = score(hits_of_groups(ranks, group), n_relevant, user)
        seconds = sum(state.seconds for state in states)
        yield TrialResult(fit.trial(states[0].iterations), scores, seconds, ranks=ranks), list(states)


def best_first(results: Sequence[TrialResult]) -> list[TrialResult]:
    """By MAP@10; among equals the cheaper model first; what was stopped, then what failed, last."""
    return sorted(
        results,
        key=lambda result: (
            result.scores is None,
            result.iterations_done is not None,
            -result.scores.map if result.scores else 0.0,
            result.trial.cost,
            result.trial,
        ),
    )
