"""The baselines, each made of what a split leaves for training."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.baseline_tuning import Baseline, Family
from recsys_pipeline.core.baselines import by_popularity, by_repeat_consumption
from recsys_pipeline.core.ease import ease_bytes, ease_scorer
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.item_graph import ItemGraph
from recsys_pipeline.core.item_knn import (
    NearestItems,
    SimilarityWeighting,
    nearest_bytes,
    similarity_weights,
)
from recsys_pipeline.core.pattern import Pattern
from recsys_pipeline.core.ranking import NOTHING, SCORES_AT_ONCE, Lister, lists_by, scored_lists

N = TypeVar("N", int, float)

# Few enough for the memory of one block to serve the next: new pages take as long as what is written to them.
_SCORES_AT_ONCE = 1 << 21
# Compiled loops that a family needs.
LOOPS = {
    Family.item_knn: "recsys_pipeline.core.similarity",
    Family.graph_filter: "recsys_pipeline.core.graph_loops",
}


class TrainedBaseline(NamedTuple):
    """A baseline that can recommend.

    Attributes:
        baseline: its configuration.
        lister: its lists.
    """

    baseline: Baseline
    lister: Lister


def sharing(baselines: Sequence[Baseline]) -> list[list[Baseline]]:
    """The baselines in groups that are cheaper together: item-kNN by the same weights."""
    groups: dict[Baseline, list[Baseline]] = {}
    for baseline in baselines:
        common = baseline
        if baseline.family is Family.item_knn:
            common = baseline._replace(neighbours=None, shrinkage=None)
        groups.setdefault(common, []).append(baseline)
    return list(groups.values())


def trained_baselines(
    baselines: Sequence[Baseline], split: Split, target_events: Sequence[str]
) -> Iterator[TrainedBaseline]:
    """The baselines of a group, see `sharing`.

    Args:
        baselines: one, or several by item-kNN of the same weights.
        split: with their mappings of the events; with the events, for popularity.
        target_events: events that count for popularity.
    """
    first = baselines[0]
    if first.family is Family.item_knn:
        yield from _by_item_knn(baselines, split)
    elif first.family is Family.graph_filter:
        yield TrainedBaseline(first, _by_graph_filter(first, split))
    elif first.family is Family.ease:
        assert first.penalty is not None
        yield TrainedBaseline(first, lists_by(ease_scorer(split.training[_mapping(first)], first.penalty)))
    else:
        popularity = split.target_popularity(target_events)
        lister = by_popularity(popularity)
        if first.family is Family.repeat_consumption:
            name = _mapping(first)
            lister = by_repeat_consumption(split.training[name], _strengths_left(split, name), popularity)
        yield TrainedBaseline(first, lister)


def baseline_bytes(baselines: Sequence[Baseline], split: Split) -> int:
    """What the baselines of a group take beside the data, estimated."""
    first = baselines[0]
    training = split.training[_mapping(first)]
    most_scores = len(split.users) * training.n_items
    if first.family is Family.item_knn:
        shrinkages = {baseline.shrinkage for baseline in baselines}
        most = max(_number(baseline.neighbours) for baseline in baselines)
        return nearest_bytes(training, most, len(shrinkages))
    if first.family is Family.graph_filter:
        return 16 * training.n_interactions + 12 * min(most_scores, _SCORES_AT_ONCE)
    if first.family is Family.ease:
        return ease_bytes(training.n_items) + 12 * min(most_scores, SCORES_AT_ONCE)
    return 16 * training.n_interactions


def _by_item_knn(baselines: Sequence[Baseline], split: Split) -> Iterator[TrainedBaseline]:
    name = _mapping(baselines[0])
    training = split.training[name]
    weighting = SimilarityWeighting(baselines[0].weighting)
    weights = similarity_weights(training, _strengths_left(split, name), weighting)
    wanted = [(_number(baseline.neighbours), _number(baseline.shrinkage)) for baseline in baselines]
    numbers, shrinkages = zip(*wanted, strict=True)
    nearest = NearestItems.of(training, weights, numbers, shrinkages)
    for baseline, parameters in zip(baselines, wanted, strict=True):
        yield TrainedBaseline(baseline, nearest.lister(*parameters))


def _by_graph_filter(baseline: Baseline, split: Split) -> Lister:
    parameters = baseline.graph_filter()
    rows = split.graph_rows(parameters, _mapping(baseline))
    scorer = ItemGraph.of(rows, parameters).scorer(rows)

    def lister(users: NDArray[np.int32], exclusions: Pattern, k: int) -> NDArray[np.int32]:
        lists = np.full((len(users), k), NOTHING, dtype=np.int32)
        at_once = max(1, _SCORES_AT_ONCE // exclusions.n_items)
        for first in range(0, len(users), at_once):
            block = slice(first, first + at_once)
            lists[block], scores = scored_lists(scorer, users[block], exclusions, k)
            # What no walk reaches has score 0, and comes last.
            lists[block][scores <= 0] = NOTHING
        return lists

    return lister


def _mapping(baseline: Baseline) -> str:
    return baseline.strengths or DEFAULT_STRENGTHS


def _number(parameter: N | None) -> N:
    assert parameter is not None
    return parameter


def _strengths_left(split: Split, mapping: str) -> NDArray[np.float64]:
    """(n_training_interactions,) the strengths by a mapping."""
    left = split.training_strengths[mapping]
    return left[left > 0]
