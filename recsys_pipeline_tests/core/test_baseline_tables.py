"""The tables of the baselines: which one is the best, and how a trial compares with it."""

import numpy as np
import pytest

from recsys_pipeline.core.baseline_tables import (
    ChosenBaselines,
    baseline_ranks_table,
    baselines_table,
    lead_over_baselines,
)
from recsys_pipeline.core.baseline_tuning import Baseline, BaselineResult, Family, best_baselines_first
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.selected import SELECTED_BY
from recsys_pipeline.core.selecting import SelectBy, Selection

KNN = Baseline(Family.item_knn, "default", "presence", neighbours=20, shrinkage=10.0)
GRAPH = Baseline(Family.graph_filter, "buys", "presence", user_exponent=0.5, item_exponent=0.25)
POPULAR = Baseline(Family.popularity)


def result(baseline, mean, ranks=(1, 11)):
    scores = Scores(mean, 0.01, mean, mean, mean, mean)
    return BaselineResult(baseline, scores, 1.5, ranks=np.array(ranks, np.uint8))


RESULTS = [
    result(KNN, 0.2),
    BaselineResult(KNN._replace(neighbours=400), None, float("nan"), "out of memory"),
    result(KNN._replace(neighbours=100), 0.3, (2, 3)),
    result(POPULAR, 0.1),
    result(GRAPH, 0.3, (4, 5)),
    BaselineResult(Baseline(Family.ease), None, float("nan"), "too many items"),
]
RANKING = best_baselines_first(RESULTS)


def test_the_best_come_first_in_the_given_order_among_equals_and_what_was_not_measured_last():
    table = baselines_table(RANKING)

    assert table["family"].to_pylist() == [
        *("item_knn", "graph_filter", "item_knn", "popularity", "item_knn", "ease"),
    ]
    assert table["neighbours"].to_pylist() == [100, None, 20, None, 400, None]
    assert table["MAP@10"].to_pylist() == [0.3, 0.3, 0.2, 0.1, None, None]
    assert table["seconds"].to_pylist() == [1.5, 1.5, 1.5, 1.5, None, None]
    assert table["failure"].to_pylist() == [None, None, None, None, "out of memory", "too many items"]


def test_one_of_each_family_is_chosen_and_its_ranks_are_kept():
    table, ranks = baselines_table(RANKING), baseline_ranks_table(RANKING)

    assert table["chosen"].to_pylist() == [True, True, False, True, False, False]
    assert ranks["family"].to_pylist() == ["item_knn", "graph_filter", "popularity"]
    assert ranks["ranks"].to_pylist() == [[2, 3], [4, 5], [1, 11]]


def test_what_the_evaluation_reads_of_them():
    stored = {"strengths": {"default": {"view": 1.0}, "buys": {"buy": 1.0}}}
    chosen = ChosenBaselines.of(with_metadata(baselines_table(RANKING), stored))

    assert chosen.by_family == {
        Family.item_knn: KNN._replace(neighbours=100),
        Family.graph_filter: GRAPH,
        Family.popularity: POPULAR,
    }
    assert chosen.mappings == {"default": None, "buys": {"buy": 1.0}}
    assert chosen.why_not[Family.ease] == "too many items"


@pytest.mark.parametrize("baseline", [KNN, GRAPH, POPULAR])
def test_a_baseline_survives_json(baseline):
    assert Baseline.from_mapping(baseline.as_dict()) == baseline


def lead(own, best, n_users=100):
    """Of a trial that ranks everybody at one place over a baseline that ranks everybody at another."""
    users = np.arange(n_users)
    tables = {
        "baselines": baselines_table([result(KNN, 1 / best, [best] * n_users)]),
        "baseline_ranks": baseline_ranks_table([result(KNN, 1 / best, [best] * n_users)]),
    }
    return lead_over_baselines(np.full(n_users, own, np.uint8), tables, users, users, seed=1)


def test_a_trial_leads_by_the_difference_of_the_means():
    ahead, behind = lead(1, 2), lead(4, 2)

    assert ahead.baseline == KNN
    assert (ahead.figure, ahead.difference.mean, ahead.is_significant) == (0.5, 0.5, True)
    assert tuple(ahead.difference.interval) == (0.5, 0.5)
    assert (behind.difference.mean, behind.is_significant) == (-0.25, False)


def test_the_interval_pairs_each_user_with_themselves():
    """Ranks that differ between users, but not between the two: a difference without any error."""
    rng = np.random.default_rng(0)
    users = np.arange(50)
    ranks = rng.integers(1, 5, 50).astype(np.uint8)
    tables = {
        "baselines": baselines_table([result(KNN, 0.5, ranks)]),
        "baseline_ranks": baseline_ranks_table([result(KNN, 0.5, ranks)]),
    }
    found = lead_over_baselines(ranks, tables, users, users, seed=1)

    assert tuple(found.difference.interval) == (0.0, 0.0)
    assert not found.is_significant


def test_there_is_no_lead_where_nothing_was_measured():
    nothing = [BaselineResult(Baseline(Family.ease), None, float("nan"), "too many items")]
    tables = {"baselines": baselines_table(nothing), "baseline_ranks": baseline_ranks_table(nothing)}
    users = np.arange(2)

    assert lead_over_baselines(np.ones(2, np.uint8), tables, users, users, seed=1) is None


# --- Another metric than MAP@10 ---

HIT_RATE_AT_20 = Selection(SelectBy.HitRate, 20)
BOLD, BROAD = [1, 1, 21, 21], [9, 9, 20, 21]


def tuned(by):
    """Two families of which the first is the better by MAP@10, the second by HitRate@20."""
    users = np.arange(4)
    given = [result(KNN, 0.5, BOLD), result(POPULAR, 0.07, BROAD)]
    if by == HIT_RATE_AT_20:
        given = [each._replace(selected=by.estimate(each.ranks, users, users)) for each in given]
    ranking = best_baselines_first(given)
    tables = {
        "baselines": baselines_table(ranking, by),
        "baseline_ranks": baseline_ranks_table(ranking),
    }
    return {name: with_metadata(table, {SELECTED_BY: by.as_dict()}) for name, table in tables.items()}


def test_baselines_are_ordered_by_what_selects_which_has_columns_of_its_own():
    table = tuned(HIT_RATE_AT_20)["baselines"]

    assert table["family"].to_pylist() == ["popularity", "item_knn"]
    assert table["hit_rate_at_20"].to_pylist() == [0.75, 0.5]
    assert table["hit_rate_at_20_standard_error"].to_pylist()[0] == pytest.approx(0.25)
    assert table["MAP@10"].to_pylist() == [0.07, 0.5]


def test_a_trial_is_compared_by_what_selects_in_the_search_whatever_the_baselines_were_tuned_by():
    users, trial = np.arange(4), np.array([1, 1, 1, 1], np.uint8)

    def beside(by):
        return lead_over_baselines(trial, tuned(HIT_RATE_AT_20), users, users, seed=1, selection=by)

    by_hit_rate, by_map = beside(HIT_RATE_AT_20), beside(Selection())
    assert (by_hit_rate.baseline, by_hit_rate.figure, by_hit_rate.difference.mean) == (POPULAR, 0.75, 0.25)
    assert (by_map.baseline, by_map.figure, by_map.difference.mean) == (KNN, 0.5, 0.5)
    assert (by_map.selection, by_map.tuned_by) == (Selection(), HIT_RATE_AT_20)


def test_nor_is_it_where_the_ranks_of_the_baselines_are_short():
    users, short = np.arange(4), tuned(Selection(SelectBy.NDCG, 5))

    def beside(k):
        selection = Selection(SelectBy.HitRate, k)
        return lead_over_baselines(np.ones(4, np.uint8), short, users, users, seed=1, selection=selection)

    assert beside(10)
    assert beside(11) is None
