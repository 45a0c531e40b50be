"""The tables of a search, and the winner that is read from them."""

import numpy as np
import pytest

from recsys_pipeline.core.blending import Blend
from recsys_pipeline.core.comparison import Interval
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.results import Winner, ranks_table, results_table
from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.core.selected import SELECTED_BY
from recsys_pipeline.core.selecting import Estimate, SelectBy, Selection

TRIAL = Hyperparameters(factors=4, regularization=0.1, alpha=5.0, iterations=6, bm25_K1=100.0, bm25_B=0.8)
BEST = TrialResult(TRIAL, Scores(0.5, 0.1, 0.6, 0.7, 0.8, 0.9), 1.5, ranks=np.array([1, 11], np.uint8))
STOPPED = BEST._replace(hyperparameters=TRIAL.replace(weighting="none"), iterations_done=3)
FAILED = TrialResult(TRIAL.replace(alpha=6.0), None, float("nan"), "diverged")
STORED = {"seed": 7, "solver": "batched", "strengths": {"default": {"view": 1.0}, "equal": {"view": 2.0}}}


def table(ranking=(BEST, STOPPED, FAILED), chosen=0, incumbent=None):
    differences = [Interval(0.0, 0.0), Interval(-0.2, -0.1), None]
    return results_table(ranking, differences[: len(ranking)], chosen, incumbent)


def test_a_trial_is_a_row_with_its_scores():
    best, stopped, _ = table().to_pylist()

    assert best["MAP@10"] == 0.5
    assert best["map_at_10_standard_error"] == 0.1
    assert [best[f"{name}_at_10"] for name in ("ndcg", "hit_rate", "recall")] == [0.6, 0.7, 0.8]
    assert best["notebook_map_at_10"] == 0.9
    assert (best["iterations_done"], stopped["iterations_done"]) == (6, 3)
    assert (best["chosen"], stopped["chosen"]) == (True, False)
    assert (best["distinguishable"], stopped["distinguishable"]) == (False, True)
    assert (stopped["difference_low"], stopped["difference_high"]) == (-0.2, -0.1)
    assert best["failure"] is None


def test_what_selects_has_columns_of_its_own_where_it_is_not_map_at_10():
    by = Selection(SelectBy.NDCG, 20)
    ranking = [BEST._replace(selected=Estimate(0.65, 0.02)), FAILED]
    differences = [Interval(0.0, 0.0), None]
    found = results_table(ranking, differences, 0, selection=by)

    assert found["ndcg_at_20"].to_pylist() == [0.65, None]
    assert found["ndcg_at_20_standard_error"].to_pylist() == [0.02, None]
    assert set(found.column_names) - set(table().column_names) == {by.column, by.error_column}
    winner = Winner.of(with_metadata(found, {**STORED, SELECTED_BY: by.as_dict()}))
    assert winner.selection == by


def test_the_figures_at_10_stay_where_one_of_them_selects():
    by = Selection(SelectBy.NDCG)
    found = results_table([BEST._replace(selected=Estimate(0.6, 0.02))], [None], 0, selection=by)

    assert found.column_names.count("ndcg_at_10") == 1
    assert found["ndcg_at_10_standard_error"].to_pylist() == [0.02]


def test_what_a_trial_does_not_use_is_null():
    best, stopped, _ = table().to_pylist()

    assert (best["bm25_K1"], best["bm25_B"]) == (100.0, 0.8)
    assert (stopped["bm25_K1"], stopped["bm25_B"]) == (None, None)


def test_a_trial_that_failed_is_a_row_with_its_reason_and_without_figures():
    failed = table().to_pylist()[-1]
    told = {name for name, value in failed.items() if value is not None}

    assert failed["failure"] == "diverged"
    assert told == {*TRIAL.as_dict(), "chosen", "incumbent", "failure"} - {"half_life_days"}


@pytest.mark.parametrize(("incumbent", "expected"), [(None, [0, 0, 0]), (1, [0, 1, 0]), (2, [0, 0, 1])])
def test_the_configuration_of_the_release_before_is_marked(incumbent, expected):
    assert table(incumbent=incumbent)["incumbent"].to_pylist() == list(map(bool, expected))


def test_the_ranks_are_those_of_the_trials_that_were_scored():
    rows = ranks_table([BEST, FAILED]).to_pylist()

    assert rows == [{**TRIAL.as_dict(), "half_life_days": None, "ranks": [1, 11]}]


@pytest.mark.parametrize("chosen", [0, 1])
def test_the_winner_is_the_chosen_row(chosen):
    winner = Winner.of(with_metadata(table(chosen=chosen), STORED))

    assert winner.hyperparameters.weighting == ("bm25", "none")[chosen]
    assert (winner.seed, winner.solver, winner.blend) == (7, "batched", None)
    assert winner.strengths is None
    assert winner.row["MAP@10"] == 0.5


def test_the_winner_knows_the_strengths_of_its_mapping_and_the_blend():
    ranking = [BEST._replace(hyperparameters=TRIAL.replace(strengths="equal"))]
    blend = Blend(als=1.0, events={"view": 0.5}, target=0.1, any=0.2)
    winner = Winner.of(with_metadata(table(ranking), {**STORED, "blend": blend.as_dict()}))

    assert winner.strengths == {"view": 2.0}
    assert winner.blend == blend
