"""What selects: its names, its figures, how far ranks must be known for it."""

import numpy as np
import pyarrow as pa
import pytest

from recsys_pipeline.core import selecting
from recsys_pipeline.core.columns import DESCRIPTIONS, description_of
from recsys_pipeline.core.comparison import compare_with_best, mean_difference
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.metrics import hits_of_ranks, score
from recsys_pipeline.core.search import KnownTrial, TrialResult, best_first, best_known_first
from recsys_pipeline.core.selected import SELECTED_BY, selected_columns, selection_of
from recsys_pipeline.core.selecting import MAP_AT_10, MOST_K, Estimate, SelectBy, Selection

TRIAL = Hyperparameters(factors=8, regularization=0.1, alpha=5.0, iterations=2, bm25_K1=100.0, bm25_B=0.8)
NDCG_AT_20 = Selection(SelectBy.NDCG, 20)
USERS = np.arange(4)
# First, second, eleventh, and beyond the twentieth.
RANKS = np.array([1, 2, 11, 21], np.uint8)


def trial(ranks, **changes):
    ranks = np.array(ranks, np.uint8)
    scores = score(hits_of_ranks(ranks), np.ones(len(ranks), int))
    return TrialResult(TRIAL.replace(**changes), scores, 1.0, ranks=ranks)


@pytest.mark.parametrize(
    ("selection", "name", "column", "error_column", "reach"),
    [
        (MAP_AT_10, "MAP@10", "MAP@10", "map_at_10_standard_error", 10),
        (Selection(SelectBy.MAP, 5), "MAP@5", "map_at_5", "map_at_5_standard_error", 10),
        (Selection(SelectBy.NDCG, 10), "NDCG@10", "ndcg_at_10", "ndcg_at_10_standard_error", 10),
        (NDCG_AT_20, "NDCG@20", "ndcg_at_20", "ndcg_at_20_standard_error", 20),
        (
            Selection(SelectBy.HitRate, 200),
            *("HitRate@200", "hit_rate_at_200", "hit_rate_at_200_standard_error", 200),
        ),
    ],
)
def test_what_selects_has_a_name_columns_and_a_reach(selection, name, column, error_column, reach):
    assert (selection.name, selection.column) == (name, column)
    assert (selection.error_column, selection.reach) == (error_column, reach)
    assert description_of(column)
    assert description_of(error_column)


def test_columns_that_were_always_there_are_told_as_always_and_those_of_others_not_at_all():
    assert description_of("ndcg_at_10") == DESCRIPTIONS["ndcg_at_10"]
    assert description_of("of_somebody_else") is None


@pytest.mark.parametrize(
    ("metric", "k", "of_users"),
    [
        (SelectBy.MAP, 10, [1, 1 / 2, 0, 0]),
        (SelectBy.MAP, 20, [1, 1 / 2, 1 / 11, 0]),
        (SelectBy.NDCG, 20, [1, 1 / np.log2(3), 1 / np.log2(12), 0]),
        (SelectBy.HitRate, 1, [1, 0, 0, 0]),
        (SelectBy.Recall, 11, [1, 1, 1, 0]),
    ],
)
def test_the_figure_is_the_mean_over_users_with_its_standard_error(metric, k, of_users):
    selection = Selection(metric, k)
    found = selection.estimate(RANKS, USERS, USERS)

    assert selection.of_users(RANKS, USERS, USERS) == pytest.approx(of_users)
    assert found.value == pytest.approx(np.mean(of_users))
    assert found.standard_error == pytest.approx(np.std(of_users, ddof=1) / 2)


def test_the_figures_do_not_depend_on_what_is_counted_at_once(rng, monkeypatch):
    ranks, users = rng.integers(1, 22, 50), np.arange(50)
    together = NDCG_AT_20.of_users(ranks, users, users)

    monkeypatch.setattr(selecting, "_HITS_AT_ONCE", 3 * 20)
    assert NDCG_AT_20.of_users(ranks, users, users).tolist() == together.tolist()


def test_at_10_it_is_what_the_scores_say():
    scores = score(hits_of_ranks(RANKS), np.ones(4, int))
    figures = {metric: Selection(metric).estimate(RANKS, USERS, USERS).value for metric in SelectBy}

    assert figures == {
        SelectBy.MAP: scores.map,
        SelectBy.NDCG: scores.ndcg,
        SelectBy.HitRate: scores.hit_rate,
        SelectBy.Recall: scores.recall,
    }
    assert MAP_AT_10.estimate(RANKS, USERS, USERS).standard_error == scores.standard_error


def test_the_largest_k_leaves_a_byte_for_what_is_beyond():
    assert np.uint8(MOST_K + 1) == MOST_K + 1


def test_it_goes_with_the_table_and_a_table_that_does_not_say_it_was_of_map_at_10():
    table = pa.table({"MAP@10": [0.1]})

    assert selection_of(with_metadata(table, {SELECTED_BY: NDCG_AT_20.as_dict()})) == NDCG_AT_20
    assert selection_of(table) == MAP_AT_10


def test_only_what_is_not_map_at_10_has_columns_of_its_own():
    columns = selected_columns(NDCG_AT_20, [Estimate(0.5, 0.1), None])

    assert {name: values.to_pylist() for name, values in columns.items()} == {
        "ndcg_at_20": [0.5, None],
        "ndcg_at_20_standard_error": [0.1, None],
    }
    assert selected_columns(MAP_AT_10, [None]) == {}


# --- Trials ---


# By MAP@10 the first is better, by HitRate@20 the second.
BOLD, BROAD = trial([1, 1, 21, 21], alpha=1.0), trial([9, 9, 20, 21], alpha=2.0)
HIT_RATE_AT_20 = Selection(SelectBy.HitRate, 20)


def test_trials_are_ordered_by_what_selects():
    failed = TrialResult(TRIAL, None, float("nan"), "diverged")
    trials = [failed, BOLD, BROAD]
    by_hit_rate = [each.by(HIT_RATE_AT_20, USERS, USERS) for each in trials]

    assert [each.hyperparameters.alpha for each in best_first(trials)] == [1.0, 2.0, 5.0]
    assert [each.hyperparameters.alpha for each in best_first(by_hit_rate)] == [2.0, 1.0, 5.0]
    assert [each.figure for each in by_hit_rate] == [None, 0.5, 0.75]
    assert [each.by(MAP_AT_10, USERS, USERS) for each in by_hit_rate] == trials


def test_differences_are_those_of_what_selects():
    found = mean_difference(BROAD.ranks, BOLD.ranks, USERS, USERS, 1, HIT_RATE_AT_20)
    _, of_bold = compare_with_best([BROAD, BOLD], USERS, USERS, 1, HIT_RATE_AT_20)

    assert found.mean == 0.25
    assert found.interval == (0.0, 0.75)
    assert of_bold == (-0.75, 0.0)
    assert mean_difference(BROAD.ranks, BOLD.ranks, USERS, USERS, 1).mean < 0


def known(result, k, **search):
    told = {"weights": "training", "solver": "batched", "seed": 42, "k": k, **search}
    return KnownTrial(told, result.hyperparameters, {"view": 1.0}, result.scores, 1.0, result.ranks)


def test_known_trials_whose_ranks_are_short_come_last():
    short = known(BOLD, 10, seed=43)
    trials = [short, known(BOLD, 20), known(BROAD, 200)]
    figures = [each.figure(HIT_RATE_AT_20, USERS, USERS) for each in trials]

    assert figures == [None, 0.5, 0.75]
    assert best_known_first(trials, figures) == [(trials[2], 0.75), (trials[1], 0.5), (short, None)]
    assert short.figure(MAP_AT_10, USERS, USERS) == BOLD.scores.map
