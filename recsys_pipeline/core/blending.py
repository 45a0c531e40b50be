"""The blend: ALS score, the user's own history and popularity in one score.

    score(u, i) = als * x[u] . y[i]
                  + sum of events[e] over the events e that u had with i
                  + target * ln(1 + users with a target event for i)
                  + any * ln(1 + users with any event for i)

Where the user's own items may be recommended again, such as what was viewed and not bought, the history says
more of the next purchase than any factor; what it does not say is which of those items gets bought: the two
popularities tell an item that many view and few buy from its opposite.

The weights maximise the likelihood that each user picks the held-out item out of a choice of candidates
(conditional logit; McFadden, "Conditional logit analysis of qualitative choice behavior", 1974).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import NOTHING, Factors, Scorer, best_lists
from recsys_pipeline.core.splitting import hash_long, hash_with_seed

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Candidates of a user beside the own history: so many of the best by ALS.
_BEST_BY_ALS = 100
_MAX_HELD_OUT = 10_000
_USERS_AT_ONCE = 256
# Keeps the weight of a feature that says nothing at 0.
_RIDGE = 1e-3


class Blend(NamedTuple):
    """The weights; see above.

    Attributes:
        als: of the product of the factors.
        events: of each event that the user had with the item.
        target: of the popularity by target events.
        any: of the popularity by events of any kind.
    """

    als: float
    events: Mapping[str, float]
    target: float
    any: float

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """From JSON."""
        return cls(**values)


class History(NamedTuple):
    """What the blend knows beside the factors.

    Attributes:
        pattern: all interactions.
        events: by event, (n_interactions,) whether the user had it with the item.
        target_events: events that count for the popularity by target events.
    """

    pattern: Pattern
    events: Mapping[str, NDArray[np.bool_]]
    target_events: Sequence[str]

    def matrix(self, weights: Mapping[str, float]) -> "csr_matrix":
        """Users x items, the summed weights of the events."""
        total = np.zeros(self.pattern.n_interactions, dtype=np.float32)
        for event, weight in weights.items():
            total += self.events[event] * np.float32(weight)
        return self.pattern.user_items(total)

    def popularities(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(n_items,) ln(1 + users) who had a target event, and any event, with the item."""
        return self._popularity(self.target_events), self._popularity(list(self.events))

    def _popularity(self, events: Sequence[str]) -> NDArray[np.float32]:
        counted = np.logical_or.reduce([self.events[event] for event in events])
        users = np.bincount(self.pattern.indices[counted], minlength=self.pattern.n_items)
        return np.log1p(users).astype(np.float32)


class Blended(NamedTuple):
    """What a blend knows of the items, for any users.

    Attributes:
        blend: the weights.
        items: (factors, n_items) float32 factors times the weight of ALS.
        of_item: (n_items,) float32 what the popularity adds; minus infinity for an item that nobody touched.
    """

    blend: Blend
    items: NDArray[np.float32]
    of_item: NDArray[np.float32]

    @classmethod
    def of(cls, blend: Blend, items: NDArray[np.float32], history: History) -> Self:
        """Of (n_items, factors), with the popularity that they have in a history."""
        target, anything = history.popularities()
        of_item = np.float32(blend.target) * target + np.float32(blend.any) * anything
        of_item = np.where(anything > 0, of_item, -np.inf).astype(np.float32)
        return cls(blend, np.float32(blend.als) * items.T, of_item)

    def scorer(self, user_factors: NDArray[np.float32], history: History) -> Scorer:
        """The blended score of users with these (n_users, factors) and this history of their own."""
        own = history.matrix(self.blend.events)

        def scores_of(users: NDArray[np.int32]) -> NDArray[np.float32]:
            scores: NDArray[np.float32] = user_factors[users] @ self.items
            scores += self.of_item
            rows, positions = history.pattern.interactions_of(users)
            scores[rows, own.indices[positions]] += own.data[positions]
            return scores

        return scores_of


def by_blend(blend: Blend, factors: Factors, history: History) -> Scorer:
    """The blended score; an item that nobody touched is not recommended."""
    return Blended.of(blend, factors.items, history).scorer(factors.users, history)


def fit_blend(
    als: Scorer,
    history: History,
    exclusions: Pattern,
    users: NDArray[np.int32],
    items: NDArray[np.int32],
    seed: int,
) -> Blend | None:
    """The weights under which users most likely pick their held-out items; None where nothing can be learned.

    The candidates of a user are the items of the own history that are not excluded and the best by ALS; a
    held-out item that is none of them teaches nothing. Of more than 10,000 held-out interactions so many are
    drawn, by a hash of seed, user and item.

    Args:
        als: the factors' product.
        history: what is left for training.
        exclusions: the interactions that exclude their item.
        users: (n,) user index of each held-out interaction; known to the model.
        items: (n,) its item index.
        seed: of the draw.
    """
    if len(users) > _MAX_HELD_OUT:
        hashes = hash_long(items.astype(np.int64), hash_with_seed(users.astype(np.int64), seed))
        drawn = np.sort(np.argsort(hashes, kind="stable")[:_MAX_HELD_OUT])
        users, items = users[drawn], items[drawn]
    rows, features = _candidates(als, history, exclusions, users)
    cols = features.pop("item").astype(np.int32)
    picked = cols == items[rows]
    answered = np.bincount(rows[picked], minlength=len(users)) > 0
    if not answered.any():
        return None
    kept = answered[rows]
    names = list(features)
    matrix = np.stack([features[name][kept] for name in names], axis=1)
    scale = matrix.std(axis=0)
    scale[scale == 0] = 1.0
    weights = _conditional_logit(matrix / scale, rows[kept], picked[kept], len(users)) / scale
    found = dict(zip(names, weights.tolist(), strict=True))
    return Blend(
        als=found.pop("als"),
        target=found.pop("target"),
        any=found.pop("any"),
        events=found,
    )


def _candidates(
    als: Scorer, history: History, exclusions: Pattern, users: NDArray[np.int32]
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """Row among `users` of each candidate, and its item and features."""
    pattern = history.pattern
    best = best_lists(als, users, exclusions, min(_BEST_BY_ALS, pattern.n_items))
    listed_rows, ranks = np.nonzero(best != NOTHING)
    own_rows, positions = pattern.interactions_of(users)
    left = np.logical_or.reduce(list(history.events.values()))[positions]
    of_users = users[own_rows].astype(np.int32)
    offered = left & (exclusions.positions_of(of_users, pattern.indices[positions]) < 0)
    rows = np.concatenate([listed_rows, own_rows[offered]]).astype(np.int64)
    cols = np.concatenate([best[listed_rows, ranks], pattern.indices[positions][offered]]).astype(np.int64)
    keys = np.unique(rows * pattern.n_items + cols)
    rows, cols = np.divmod(keys, pattern.n_items)
    target, anything = history.popularities()
    features = {"item": cols.astype(np.float64), "target": target[cols], "any": anything[cols]}
    by_als = np.empty(len(rows))
    for first in range(0, len(users), _USERS_AT_ONCE):
        scores = als(users[first : first + _USERS_AT_ONCE])
        block = slice(*np.searchsorted(rows, (first, first + _USERS_AT_ONCE)))
        by_als[block] = scores[rows[block] - first, cols[block]]
    # 0 for an item of the own history that ALS knows nothing of.
    features["als"] = np.where(np.isfinite(by_als), by_als, 0.0)
    found = pattern.positions_of(users[rows].astype(np.int32), cols.astype(np.int32))
    for event, left in history.events.items():
        features[event] = np.where(found >= 0, left[np.maximum(found, 0)], False).astype(np.float64)
    return rows, {name: np.asarray(values, dtype=np.float64) for name, values in features.items()}


def _conditional_logit(
    features: NDArray[np.float64], rows: NDArray[np.int64], picked: NDArray[np.bool_], n_rows: int
) -> NDArray[np.float64]:
    """The weights of greatest likelihood; each row that occurs has one or more picked candidates."""
    n_picked = max(int(picked.sum()), 1)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = features @ weights
        largest = np.full(n_rows, -np.inf)
        np.maximum.at(largest, rows, scores)
        odds = np.exp(scores - largest[rows])
        total = np.bincount(rows, weights=odds, minlength=n_rows)
        share = np.bincount(rows, weights=picked, minlength=n_rows)[rows] * odds / total[rows]
        log_likelihood = (scores - largest[rows] - np.log(total[rows]))[picked].sum()
        gradient = features[picked].sum(axis=0) - share @ features
        return (
            -log_likelihood / n_picked + _RIDGE / 2 * weights @ weights,
            -gradient / n_picked + _RIDGE * weights,
        )

    # Imported here: it takes a while, and only a search that fits a blend needs it.
    from scipy.optimize import minimize

    start = np.zeros(features.shape[1])
    solved: NDArray[np.float64] = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return solved
