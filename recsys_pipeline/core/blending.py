"""The blend: ALS score, item graph, the user's own history and popularity in one score.

    score(u, i) = als * x[u] . y[i] / scale
                  + graph * (r_u R~' R~)_i / scale
                  + sum of events[e] / scale over the events e that u had with i
                  + target * ln(1 + users with a target event for i) / scale
                  + any * ln(1 + users with any event for i) / scale

Each term is divided by a scale of its own, its standard deviation among the candidates that the weights were
learned from, so that the weights compare: that of a term is what one standard deviation of it is worth.

The item graph (`item_graph`) finds what factors blur: which items go together, directly. Where the user's own
items may be recommended again, such as what was viewed and not bought, the history says more of the next
purchase than either; what it does not say is which of those items gets bought: the two popularities tell an
item that many view and few buy from its opposite.

The weights are learned from what users picked out of a choice of candidates: first those of greatest
likelihood (conditional logit; McFadden, "Conditional logit analysis of qualitative choice behavior", 1974),
and from there on those that put the picked item highest.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.item_graph import GraphFilter, ItemGraph, reached_only
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import NOTHING, SCORES_AT_ONCE, Factors, Lister, Scorer, best_lists
from recsys_pipeline.core.splitting import hash_long, hash_with_seed

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Names of the terms; those of the own history are named by their event.
ALS, GRAPH, TARGET, ANY = "als", "graph", "target", "any"
# What is left out together to see what it is worth.
ALS_SCORE, ITEM_GRAPH, OWN_HISTORY, POPULARITY = "ALS", "the item graph", "the own history", "popularity"
GROUPS = (ALS_SCORE, ITEM_GRAPH, OWN_HISTORY, POPULARITY)
_GROUP_OF = {ALS: ALS_SCORE, GRAPH: ITEM_GRAPH, TARGET: POPULARITY, ANY: POPULARITY}

# Candidates of a user beside the own history: so many of the best by ALS, and as many by the graph.
_BEST_OF_EACH = 100
# So many held-out interactions tell the weights well enough.
MOST_CHOICES = 10_000
_USERS_AT_ONCE = 256
# Keeps the weight of a feature that says nothing at 0.
_RIDGE = 1e-3
# Of the climb: shares of a step, its least size, and by how much a round must improve for another like it.
_STEPS = (-1.0, -0.5, -0.25, -0.1, 0.1, 0.25, 0.5, 1.0)
_LEAST_STEP = 0.05
_LEAST_GAIN = 1e-3


def own(event: str) -> str:
    """Name of the term of an event of the own history."""
    return f"own {event}"


class Blend(NamedTuple):
    """The weights; see above.

    Attributes:
        als: of the product of the factors.
        events: of each event that the user had with the item.
        target: of the popularity by target events.
        any: of the popularity by events of any kind.
        graph: of the item graph.
        filter: of the item graph; None where the blend has none.
        scales: by name of a term, what it is divided by; 1 where it is not named.
    """

    als: float
    events: Mapping[str, float]
    target: float
    any: float
    graph: float = 0.0
    filter: GraphFilter | None = None
    scales: Mapping[str, float] = {}

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """From JSON; blends from before the item graph have none, and no scales."""
        parameters = values.get("filter")
        return cls(**{**values, "filter": GraphFilter.from_mapping(parameters) if parameters else None})

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**self._asdict(), "filter": self.filter.as_dict() if self.filter else None}

    @property
    def weights(self) -> dict[str, float]:
        """By name of the term."""
        of_events = {own(event): weight for event, weight in self.events.items()}
        graph = {GRAPH: self.graph} if self.filter else {}
        return {ALS: self.als, **graph, **of_events, TARGET: self.target, ANY: self.any}

    def factor(self, term: str) -> np.float32:
        """What a term is multiplied with: its weight over its scale."""
        return np.float32(self.weights.get(term, 0.0) / self.scales.get(term, 1.0))


class FittedBlend(NamedTuple):
    """A blend and what it would be without some of its terms.

    Attributes:
        blend: with all terms.
        without: by group of terms, the weights of the others, learned anew; groups that say
            nothing have none.
    """

    blend: Blend
    without: Mapping[str, Blend]


class History(NamedTuple):
    """What the blend knows beside factors and graph.

    Attributes:
        pattern: all interactions.
        events: by event, (n_interactions,) whether the user had it with the item.
        target_events: events that count for the popularity by target events.
    """

    pattern: Pattern
    events: Mapping[str, NDArray[np.bool_]]
    target_events: Sequence[str]

    def matrix(self, blend: Blend) -> "csr_matrix":
        """Users x items, what the events add up to."""
        total = np.zeros(self.pattern.n_interactions, dtype=np.float32)
        for event in blend.events:
            if event in self.events:
                total += self.events[event] * blend.factor(own(event))
        return self.pattern.user_items(total)

    def popularities(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(n_items,) ln(1 + users) who had a target event, and any event, with the item."""
        return self._popularity(self.target_events), self._popularity(list(self.events))

    def _popularity(self, events: Sequence[str]) -> NDArray[np.float32]:
        counted = np.logical_or.reduce([self.events[event] for event in events])
        users = np.bincount(self.pattern.indices[counted], minlength=self.pattern.n_items)
        return np.log1p(users).astype(np.float32)


class Terms(NamedTuple):
    """The terms of the blend, for some users and all items.

    Attributes:
        als: (n, n_items) products of the factors.
        graph: (n, n_items) scores by the item graph; None where there is none.
        target: (n_items,) popularity by target events.
        any: (n_items,) popularity by any event.
        history: of the users.
    """

    als: Scorer
    graph: Scorer | None
    target: NDArray[np.float32]
    any: NDArray[np.float32]
    history: History

    def scorer(self, blend: Blend) -> Scorer:
        """The blended score; an item that nobody touched is not recommended."""
        blended = self._blended(blend)
        return lambda users: blended(users, self.als(users), self.graph(users) if self.graph else None)

    def listers(self, blends: Mapping[str, Blend]) -> dict[str, Lister]:
        """By name the lists of each blend: the terms are scored once for all of them, on the first call."""
        made: dict[str, NDArray[np.int32]] = {}
        asked_for: list[NDArray[np.int32]] = []

        def lister(name: str, users: NDArray[np.int32], exclusions: Pattern, k: int) -> NDArray[np.int32]:
            if not asked_for or not np.array_equal(asked_for[0], users) or made[name].shape[1] != k:
                asked_for[:] = [users]
                made.update(self._lists(blends, users, exclusions, k))
            return made[name]

        return {name: partial(lister, name) for name in blends}

    def _lists(
        self, blends: Mapping[str, Blend], users: NDArray[np.int32], exclusions: Pattern, k: int
    ) -> dict[str, NDArray[np.int32]]:
        blended = {name: self._blended(blend) for name, blend in blends.items()}
        lists = {name: np.full((len(users), k), NOTHING, dtype=np.int32) for name in blends}
        at_once = max(1, SCORES_AT_ONCE // exclusions.n_items)
        for first in range(0, len(users), at_once):
            some = users[first : first + at_once]
            als, graph = self.als(some), self.graph(some) if self.graph else None
            for name, scores_of in blended.items():
                scorer: Scorer = partial(scores_of, als=als, graph=graph)
                lists[name][first : first + at_once] = best_lists(scorer, some, exclusions, k)
        return lists

    def _blended(self, blend: Blend) -> Callable[..., NDArray[np.float32]]:
        """From users and their scores by ALS and graph to the blended ones, a new array."""
        of_item = blend.factor(TARGET) * self.target + blend.factor(ANY) * self.any
        of_item = np.where(self.any > 0, of_item, -np.inf).astype(np.float32)
        history = self.history.matrix(blend)

        def blended(
            users: NDArray[np.int32], als: NDArray[np.float32], graph: NDArray[np.float32] | None
        ) -> NDArray[np.float32]:
            scores: NDArray[np.float32] = als * blend.factor(ALS)
            if graph is not None and blend.graph:
                scores += graph * blend.factor(GRAPH)
            scores += of_item
            rows, positions = self.history.pattern.interactions_of(users)
            scores[rows, history.indices[positions]] += history.data[positions]
            return scores

        return blended


class BlendedItems(NamedTuple):
    """What a blend knows of the items, for any users.

    Attributes:
        items: (factors, n_items) float32.
        graph: of the items; None where the blend has none.
        target: (n_items,) popularity by target events.
        any: (n_items,) popularity by any event.
    """

    items: NDArray[np.float32]
    graph: ItemGraph | None
    target: NDArray[np.float32]
    any: NDArray[np.float32]

    @classmethod
    def of(cls, items: NDArray[np.float32], graph: ItemGraph | None, history: History) -> Self:
        """Of (n_items, factors), with the popularity that they have in a history."""
        return cls(np.ascontiguousarray(items.T), graph, *history.popularities())

    def terms(
        self,
        users: NDArray[np.float32],
        history: History,
        rows: "csr_matrix | None" = None,
        known: NDArray[np.integer] | None = None,
    ) -> Terms:
        """Of users with these (n_users, factors) and this history of their own.

        Args:
            users: factors.
            history: theirs.
            rows: theirs in the item graph, where there is one: see `ItemGraph.scorer`.
            known: see there.
        """
        graph = self.graph.scorer(rows, known) if self.graph and rows is not None else None

        def als(some: NDArray[np.int32]) -> NDArray[np.float32]:
            scores: NDArray[np.float32] = users[some] @ self.items
            return scores

        return Terms(als, graph, self.target, self.any, history)


def terms_of(
    factors: Factors, history: History, parameters: GraphFilter | None, rows: "csr_matrix | None"
) -> Terms:
    """Of the users that the model was trained with; `rows` is R of the item graph, where there is one."""
    graph = ItemGraph.of(rows, parameters) if parameters and rows is not None else None
    return BlendedItems.of(factors.items, graph, history).terms(factors.users, history, rows)


class Choices(NamedTuple):
    """What users chose among, and what they took.

    Attributes:
        rows: (n,) whose candidate it is, ascending.
        picked: (n,) whether it is the held-out item.
        features: by name of the term, (n,) its value.
        events: of the own history, which are terms.
    """

    rows: NDArray[np.int64]
    picked: NDArray[np.bool_]
    features: Mapping[str, NDArray[np.float64]]
    events: Sequence[str]

    @classmethod
    def of(
        cls,
        terms: Terms,
        exclusions: Pattern,
        users: NDArray[np.int32],
        items: NDArray[np.int32],
        seed: int,
        at_most: int = MOST_CHOICES,
    ) -> Self:
        """The candidates of those users among whose candidates the held-out item is.

        These are the items of the own history that are not excluded, the best by ALS and the best by the item
        graph; a held-out item that is none of them teaches nothing.

        Args:
            terms: what is left for training.
            exclusions: the interactions that exclude their item.
            users: (n,) user index of each held-out interaction; known to the model.
            items: (n,) its item index.
            seed: of the draw.
            at_most: of more held-out interactions so many are drawn, by a hash of seed, user and item.
        """
        if len(users) > at_most:
            hashes = hash_long(items.astype(np.int64), hash_with_seed(users.astype(np.int64), seed))
            drawn = np.sort(np.argsort(hashes, kind="stable")[:at_most])
            users, items = users[drawn], items[drawn]
        rows, cols = _candidates(terms, exclusions, users)
        picked = cols == items[rows]
        kept = (np.bincount(rows[picked], minlength=len(users)) > 0)[rows]
        rows, cols, picked = rows[kept], cols[kept], picked[kept]
        return cls(rows, picked, _features(terms, users, rows, cols), list(terms.history.events))

    @classmethod
    def together(cls, several: Sequence[Self]) -> Self:
        """Those of several splits, with the same terms."""
        firsts = np.cumsum([0, *(int(each.rows.max(initial=-1)) + 1 for each in several)])
        return cls(
            np.concatenate([each.rows + first for each, first in zip(several, firsts, strict=False)]),
            np.concatenate([each.picked for each in several]),
            {n: np.concatenate([each.features[n] for each in several]) for n in several[0].features},
            several[0].events,
        )


def fit_blend(choices: Choices, parameters: GraphFilter | None) -> FittedBlend | None:
    """The weights under which the held-out items come first among the candidates.

    The weights of greatest likelihood are where the climb begins: see `_climb`.

    Args:
        choices: what is learned from.
        parameters: of the item graph, where the terms have one.

    Returns:
        None where there is nothing to learn from.
    """
    if not len(choices.rows):
        return None
    features = choices.features
    scales = {name: float(values.std()) or 1.0 for name, values in features.items()}
    matrix = np.stack([values / scales[name] for name, values in features.items()], axis=1)
    _, rows = np.unique(choices.rows, return_inverse=True)
    rows = rows.reshape(-1)

    def fitted(names: Sequence[str]) -> Blend:
        columns = matrix[:, [number for number, name in enumerate(features) if name in names]]
        likely = _conditional_logit(columns, rows, choices.picked)
        found = _climb(columns, rows, choices.picked, likely)
        weights = dict.fromkeys(features, 0.0) | dict(zip(names, found.tolist(), strict=True))
        return Blend(
            als=weights[ALS],
            events={event: weights[own(event)] for event in choices.events},
            target=weights[TARGET],
            any=weights[ANY],
            graph=weights.get(GRAPH, 0.0),
            filter=parameters,
            scales=scales,
        )

    telling = [name for name, values in features.items() if np.ptp(values) > 0]
    without = {group: [name for name in features if _group(name) != group] for group in GROUPS}
    return FittedBlend(
        fitted(list(features)),
        {
            group: fitted(names)
            for group, names in without.items()
            if any(_group(name) == group for name in telling) and any(name in telling for name in names)
        },
    )


def _group(term: str) -> str:
    return _GROUP_OF.get(term, OWN_HISTORY)


def _candidates(
    terms: Terms, exclusions: Pattern, users: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row among `users` of each candidate, and its item; ascending."""
    history, pattern = terms.history, terms.history.pattern
    k = min(_BEST_OF_EACH, pattern.n_items)
    own_rows, positions = pattern.interactions_of(users)
    left = np.logical_or.reduce(list(history.events.values()))[positions]
    of_users = users[own_rows].astype(np.int32)
    offered = left & (exclusions.positions_of(of_users, pattern.indices[positions]) < 0)
    keys = [own_rows[offered].astype(np.int64) * pattern.n_items + pattern.indices[positions][offered]]
    scorers = [terms.als, *([reached_only(terms.graph)] if terms.graph else [])]
    for scorer in scorers:
        best = best_lists(_of_known(scorer, terms.any), users, exclusions, k)
        listed, places = np.nonzero(best != NOTHING)
        keys.append(listed.astype(np.int64) * pattern.n_items + best[listed, places])
    rows, cols = np.divmod(np.unique(np.concatenate(keys)), pattern.n_items)
    return rows, cols


def _of_known(scorer: Scorer, popularity: NDArray[np.float32]) -> Scorer:
    """Nothing to a user of whom nothing is known, and no item that nobody touched."""
    untouched = popularity == 0

    def scores_of(users: NDArray[np.int32]) -> NDArray[np.float32]:
        scores = scorer(users)
        scores[~scores.any(axis=1)] = -np.inf
        scores[:, untouched] = -np.inf
        return scores

    return scores_of


def _features(
    terms: Terms, users: NDArray[np.int32], rows: NDArray[np.int64], cols: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """By name of the term its value for each candidate; rows ascend."""
    scorers = {ALS: terms.als, **({GRAPH: terms.graph} if terms.graph else {})}
    features = {name: np.empty(len(rows)) for name in scorers}
    for first in range(0, len(users), _USERS_AT_ONCE):
        block = slice(*np.searchsorted(rows, (first, first + _USERS_AT_ONCE)))
        for name, scorer in scorers.items():
            scores = scorer(users[first : first + _USERS_AT_ONCE])
            features[name][block] = scores[rows[block] - first, cols[block]]
    found = terms.history.pattern.positions_of(users[rows].astype(np.int32), cols.astype(np.int32))
    for event, left in terms.history.events.items():
        features[own(event)] = np.where(found >= 0, left[np.maximum(found, 0)], False).astype(np.float64)
    features[TARGET] = terms.target[cols].astype(np.float64)
    features[ANY] = terms.any[cols].astype(np.float64)
    return features


def _conditional_logit(
    features: NDArray[np.float64], rows: NDArray[np.int64], picked: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The weights of greatest likelihood; rows are numbered without gaps, each with a picked candidate."""
    n_rows = int(rows[-1]) + 1

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        scores = features @ weights
        largest = np.full(n_rows, -np.inf)
        np.maximum.at(largest, rows, scores)
        odds = np.exp(scores - largest[rows])
        total = np.bincount(rows, weights=odds, minlength=n_rows)
        share = odds / total[rows]
        log_likelihood = (scores - largest[rows] - np.log(total[rows]))[picked].sum()
        gradient = features[picked].sum(axis=0) - share @ features
        return (
            -log_likelihood / n_rows + _RIDGE / 2 * weights @ weights,
            -gradient / n_rows + _RIDGE * weights,
        )

    # Imported here: it takes a while, and only a search that fits a blend needs it.
    from scipy.optimize import minimize

    start = np.zeros(features.shape[1])
    solved: NDArray[np.float64] = minimize(loss, start, jac=True, method="L-BFGS-B").x
    return solved


def _climb(
    features: NDArray[np.float64],
    rows: NDArray[np.int64],
    picked: NDArray[np.bool_],
    start: NDArray[np.float64],
) -> NDArray[np.float64]:
    """From these weights on, one weight after the other, to where the geometric mean of the ranks is lowest.

    The likelihood goes by how far apart the scores are, a list by their order alone. Of the measures of an
    order this one is not blind to what is beyond the list, and from rank 2 to 1 is worth as much as from 20
    to 10.

    Source: the coordinate ascent of Metzler and Croft, "Linear Feature-Based Models for Information
    Retrieval" (2007).
    """
    first = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
    n_candidates = np.diff(np.r_[first, len(rows)])

    def mean_log_rank(scores: NDArray[np.float64]) -> float:
        # Of equals the picked one is the last, so that weights that tell nothing apart are worth nothing.
        of_picked = np.repeat(scores[picked], n_candidates)
        return float(np.mean(np.log(np.add.reduceat((scores >= of_picked).astype(np.int64), first))))

    weights, scores = start.copy(), features @ start
    best = mean_log_rank(scores)
    unit = float(np.abs(start).max())
    step = unit
    while step >= _LEAST_STEP * unit > 0:
        before = best
        for number, values in enumerate(features.T):
            here = weights[number]
            for value in (0.0, *(here + step * share for share in _STEPS)):
                moved = scores + (value - weights[number]) * values
                if (reached := mean_log_rank(moved)) < best:
                    best, scores, weights[number] = reached, moved, value
        if best >= before * (1 - _LEAST_GAIN):
            step /= 3
    return weights
