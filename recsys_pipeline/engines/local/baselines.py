"""The baselines, each made of what a split leaves for training."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys_pipeline.core.baseline_tuning import Baseline, Family
from recsys_pipeline.core.baselines import by_popularity, by_repeat_consumption
from recsys_pipeline.core.ease import ease_bytes, ease_scorer
from recsys_pipeline.core.holdout import Split
from recsys_pipeline.core.hyperparameters import DEFAULT_STRENGTHS
from recsys_pipeline.core.item_graph import GraphFilter, ItemGraph, reached_only
from recsys_pipeline.core.item_knn import (
    NearestItems,
    SimilarityWeighting,
    nearest_bytes,
    similarity_weights,
)
from recsys_pipeline.core.ranking import SCORES_AT_ONCE, Lister, lists_by

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
    scores = 3 * 4 * SCORES_AT_ONCE
    if first.family is Family.item_knn:
        shrinkages = {baseline.shrinkage for baseline in baselines}
        return nearest_bytes(training, _most_neighbours(baselines), len(shrinkages))
    if first.family is Family.graph_filter:
        return 16 * training.n_interactions + scores
    if first.family is Family.ease:
        return ease_bytes(training.n_items) + scores
    return 16 * training.n_interactions


def _by_item_knn(baselines: Sequence[Baseline], split: Split) -> Iterator[TrainedBaseline]:
    name = _mapping(baselines[0])
    training = split.training[name]
    weighting = SimilarityWeighting(baselines[0].weighting)
    weights = similarity_weights(training, _strengths_left(split, name), weighting)
    shrinkages = list(dict.fromkeys(_number(baseline.shrinkage) for baseline in baselines))
    nearest = NearestItems.of(training, weights, _most_neighbours(baselines), shrinkages)
    for baseline in baselines:
        lister = nearest.lister(baseline.neighbours or 0, _number(baseline.shrinkage))
        yield TrainedBaseline(baseline, lister)


def _by_graph_filter(baseline: Baseline, split: Split) -> Lister:
    assert baseline.weighting is not None
    exponents = _number(baseline.user_exponent), _number(baseline.item_exponent)
    parameters = GraphFilter(*exponents, baseline.weighting)
    name = _mapping(baseline)
    rows = split.training[name].user_items(parameters.weigh(_strengths_left(split, name)))
    return lists_by(reached_only(ItemGraph.of(rows, parameters).scorer(rows)))


def _mapping(baseline: Baseline) -> str:
    return baseline.strengths or DEFAULT_STRENGTHS


def _number(parameter: float | None) -> float:
    assert parameter is not None
    return parameter


def _most_neighbours(baselines: Sequence[Baseline]) -> int:
    return max(baseline.neighbours or 0 for baseline in baselines)


def _strengths_left(split: Split, mapping: str) -> NDArray[np.float64]:
    """(n_training_interactions,) the strengths by a mapping."""
    left = split.training_strengths[mapping]
    return left[left > 0]
