"""One split of the interactions: what is held out, what is left to train on, what is not recommended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.blending import History
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS, NO_WEIGHTING, Hyperparameters
from recsys_pipeline.core.item_graph import GraphFilter
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.weighting import bm25_weights

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


class Weights(Enum):
    """From which interactions BM25 takes idf and lengths."""

    training = "training"
    all = "all"


@dataclass(frozen=True)
class Split:
    """One split, made once and used by search, blend, evaluation and checks alike.

    Attributes:
        pattern: all interactions.
        users: (n_held_out,) user index; from the number of users on for users who are not known.
        items: (n_held_out,) item index; -1 for an item that is not known. A user may have several.
        strengths: by the name of a mapping, (n_interactions,) strengths of all events.
        training_strengths: by the same names, the strengths without the held-out events; 0 leaves an
            interaction out.
        training: by the same names, the interactions that are left for training.
        exclusions: interactions whose item is not recommended to their user; no held-out one is.
        events: by event, (n_interactions,) whether it is left for training; empty where nobody asks.
        weigh_all: take idf and lengths of BM25 from all interactions, as the notebook does, and not from
            those left for training.
        may_repeat: whether something that a user has in training may be recommended to them.
    """

    pattern: Pattern
    users: NDArray[np.int32]
    items: NDArray[np.int32]
    strengths: Mapping[str, NDArray[np.float64]]
    training_strengths: Mapping[str, NDArray[np.float64]]
    training: Mapping[str, Pattern]
    exclusions: Pattern
    events: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    weigh_all: bool = True
    may_repeat: bool = False

    @classmethod
    def make(
        cls,
        pattern: Pattern,
        users: NDArray[np.int32],
        items: NDArray[np.int32],
        strengths: Mapping[str, NDArray[np.float64]],
        training_strengths: Mapping[str, NDArray[np.float64]],
        excluded: NDArray[np.bool_],
        events: Mapping[str, NDArray[np.bool_]] | None = None,
        *,
        weigh_all: bool = True,
    ) -> Self:
        """The split; `excluded` is (n_interactions,), the rest as above."""
        training: dict[str, Pattern] = {}
        kept: dict[str, NDArray[np.bool_]] = {}
        for name, left in training_strengths.items():
            kept[name] = left > 0
            same = next((other for other in training if np.array_equal(kept[name], kept[other])), None)
            training[name] = training[same] if same else pattern.select(kept[name])
        return cls(
            pattern,
            users,
            items,
            strengths,
            training_strengths,
            training,
            pattern.select(excluded),
            events or {},
            weigh_all,
            any(bool((left & ~excluded).any()) for left in kept.values()),
        )

    @classmethod
    def leaving_out(
        cls, pattern: Pattern, strengths: NDArray[np.float64], positions: NDArray[np.int64]
    ) -> Self:
        """Whole interactions are held out, and every other one excludes its item."""
        kept = np.ones(pattern.n_interactions, dtype=bool)
        kept[positions] = False
        return cls.make(
            pattern,
            pattern.users_at(positions),
            pattern.indices[positions],
            {DEFAULT_STRENGTHS: strengths},
            {DEFAULT_STRENGTHS: np.where(kept, strengths, 0.0)},
            kept,
        )

    @property
    def can_be_hit(self) -> NDArray[np.bool_]:
        """(n_held_out,) whether user and item are known."""
        known: NDArray[np.bool_] = (self.users < self.pattern.n_users) & (self.items >= 0)
        return known

    def weights(self, hyperparameters: Hyperparameters) -> NDArray[np.float32]:
        """(n_training_interactions,) the weights that these hyperparameters give; made anew at each call.

        Not kept: a wide search has a vector for every K1 and B, and to make one takes far less than a fit.
        """
        name = hyperparameters.strengths_name
        left = self.training_strengths[name]
        kept = left > 0
        k1, b = hyperparameters.bm25_K1, hyperparameters.bm25_B
        weights: NDArray[Any]
        if hyperparameters.weighting == NO_WEIGHTING:
            weights = left[kept].astype(np.float32)
        elif not self.weigh_all:
            weights = bm25_weights(self.training[name], left[kept], k1=k1, b=b, dtype=np.float32)
        else:
            strengths, corpus = self.strengths[name], self.pattern
            known = strengths > 0
            if not known.all():
                corpus = corpus.select(known)
                strengths, left, kept = strengths[known], left[known], kept[known]
            weights = bm25_weights(corpus, strengths, k1=k1, b=b, weighed=left, dtype=np.float32)
            weights = weights if kept.all() else weights[kept]
        return weights

    def user_items(self, hyperparameters: Hyperparameters) -> "csr_matrix":
        """The weighted users x items matrix to train on."""
        return self.training[hyperparameters.strengths_name].user_items(self.weights(hyperparameters))

    def graph_rows(self, parameters: GraphFilter, mapping: str) -> "csr_matrix":
        """R of the item graph, of what is left for training by this mapping of the events."""
        left = self.training_strengths[mapping]
        return self.training[mapping].user_items(parameters.weigh(left[left > 0]))

    def history(self, target_events: Sequence[str]) -> History:
        """The interactions with the events that are left of them."""
        return History(self.pattern, self.events, target_events)

    def target_popularity(self, target_events: Sequence[str]) -> NDArray[np.int64]:
        """(n_items,) users who have a target event with the item, among the events that are left."""
        counted = np.logical_or.reduce([self.events[event] for event in target_events])
        return np.bincount(self.pattern.indices[counted], minlength=self.pattern.n_items)

    def arrays(self) -> list[NDArray[Any]]:
        """The arrays that all fits share; one may occur more than once."""
        patterns = (self.pattern, self.exclusions, *self.training.values())
        return [
            *(self.users, self.items),
            *(*self.strengths.values(), *self.training_strengths.values()),
            *(array for pattern in patterns for array in (pattern.indptr, pattern.indices)),
        ]

    def content(self, mapping: str) -> Sequence[NDArray[Any]]:
        """What the scores of trials with this mapping depend on, to tell searches apart."""
        return [
            *(self.pattern.indptr, self.pattern.indices, self.users, self.items),
            *(self.exclusions.indptr, self.exclusions.indices),
            *(self.strengths[mapping], self.training_strengths[mapping]),
        ]
