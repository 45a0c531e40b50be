"""What a search around a known configuration tries."""

import pytest

from recsys_pipeline.core.hyperparameters import DIMENSIONS, Hyperparameters
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.neighbourhood import Neighbourhood, first_values, ladder
from recsys_pipeline.core.search import TrialResult

START = Hyperparameters(factors=64, regularization=0.1, alpha=8.0, iterations=8, bm25_K1=50.0, bm25_B=0.6)
LISTS = {name: [value] for name, value in START.as_dict().items()}
DIMENSION = {dimension.name: dimension for dimension in DIMENSIONS}


def result(trial, score):
    if score is None:
        return TrialResult(trial, None, float("nan"), "diverged")
    return TrialResult(trial, Scores(score, 0.0, score, score, score, score), 1.0)


def changes(trials, start=START):
    """Of each trial, what it changes."""
    was = start.as_dict()
    return [{name: value for name, value in t.as_dict().items() if value != was[name]} for t in trials]


# --- Values ---


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        pytest.param("factors", [64, 32], [8, 16, 32, 64, 128, 256], id="by the ratio of the last two"),
        pytest.param("alpha", [1.0, 2.0, 10.0], [0.25, 0.5, 1.0, 2.0, 10.0, 50.0, 250.0], id="of either end"),
        pytest.param("regularization", [0.0, 0.01], [0.0, 0.01, 0.02, 0.04], id="doubled where one is zero"),
        pytest.param("bm25_B", [0.4, 0.7], [0.0, 0.1, 0.4, 0.7, 1.0], id="by the difference, to the bounds"),
        pytest.param("nu", [0.5, 1.0], [0.0, 0.5, 1.0], id="not beyond the bounds"),
        pytest.param("factors", [2000, 3000], [888, 1333, 2000, 3000, 4096], id="to the largest integer"),
        pytest.param("iterations", [2, 4], [1, 2, 4, 8, 16], id="to the smallest integer"),
        pytest.param("ensemble_size", [3], [3], id="a list of one value is not continued"),
        pytest.param("weighting", ["none", "bm25"], ["none", "bm25"], id="a list of texts is not continued"),
    ],
)
def test_a_list_goes_on_two_steps_beyond_its_ends(name, values, expected):
    assert ladder(DIMENSION[name], values, 2) == pytest.approx(expected)
    assert {type(value) for value in ladder(DIMENSION[name], values, 2)} == {DIMENSION[name].type}


def test_a_list_is_not_left_where_no_step_is_allowed():
    assert ladder(DIMENSION["factors"], [32, 64], 0) == [32, 64]


# --- The first round ---


def test_the_start_and_the_next_value_to_either_side_of_each_dimension():
    lists = {**LISTS, "factors": [16, 64, 128], "nu": [0.0, 0.5], "weighting": ["bm25", "none"]}
    around = Neighbourhood.around(START, lists, steps_beyond=1)

    assert changes(around.first_round()) == [
        {},
        {"factors": 16},
        {"factors": 128},
        {"nu": 0.5},
        {"weighting": "none", "bm25_K1": 0.0, "bm25_B": 0.0},
    ]


def test_a_start_between_or_beyond_the_values_of_the_lists_is_kept():
    start = START.replace(factors=48, alpha=1000.0, ensemble_size=3)
    lists = {**LISTS, "factors": [32, 64], "alpha": [4.0, 8.0]}
    first, *others = Neighbourhood.around(start, lists, steps_beyond=2).first_round()

    assert first == start
    assert changes(others, start) == [{"factors": 32}, {"factors": 64}, {"alpha": 32.0}, {"ensemble_size": 1}]


def test_what_a_configuration_does_not_use_has_no_neighbours():
    lists = {**LISTS, "bm25_K1": [25.0, 50.0], "bm25_B": [0.2, 0.6], "weighting": ["none"]}
    around = Neighbourhood.around(START.replace(weighting="none"), lists, steps_beyond=2)

    assert len(around.first_round()) == 1


def test_bm25_starts_from_the_first_values_where_the_start_is_without():
    lists = {**LISTS, "bm25_K1": [25.0, 50.0], "bm25_B": [0.6, 0.2], "weighting": ["none", "bm25"]}
    around = Neighbourhood.around(START.replace(weighting="none"), lists, steps_beyond=1)
    start, with_bm25 = around.first_round()

    assert (with_bm25.weighting, with_bm25.bm25_K1, with_bm25.bm25_B) == ("bm25", 25.0, 0.6)
    # Nothing is known yet of other values, so both sides are tried.
    more = around.next_round([result(start, 0.1), result(with_bm25, 0.2)])
    assert changes(more, with_bm25) == [
        {"bm25_K1": 12.5},
        {"bm25_K1": 50.0},
        {"bm25_B": 0.2},
        {"bm25_B": 1.0},
    ]


def test_without_a_model_the_first_values_are_the_start():
    assert first_values({**LISTS, "factors": [128, 32]}) == START.replace(factors=128)


# --- The rounds that follow ---


AROUND = Neighbourhood.around(
    START, {**LISTS, "factors": [64, 128], "alpha": [4.0, 8.0, 16.0]}, steps_beyond=2
)


def scored(**scores):
    """The first round: the start, and its neighbours by name."""
    start, narrow, wide, cautious, bold = AROUND.first_round()
    named = {"start": start, "narrow": narrow, "wide": wide, "cautious": cautious, "bold": bold}
    assert set(scores) == set(named)
    return [result(named[name], score) for name, score in scores.items()]


def test_nothing_follows_a_start_that_is_better_than_its_neighbours():
    assert AROUND.next_round(scored(start=0.5, narrow=0.1, wide=0.1, cautious=0.1, bold=0.1)) == []


def test_the_best_at_the_edge_goes_on_in_that_direction_to_the_last_step():
    results = scored(start=0.3, narrow=0.1, wide=0.5, cautious=0.2, bold=0.1)
    found = []
    while trials := AROUND.next_round(results):
        found += changes(trials)
        results += [result(trial, 0.5 + trial.factors / 10_000) for trial in trials]

    # The list ends at 128.
    assert found == [{"factors": 256}, {"factors": 512}]


def test_it_turns_back_where_the_next_step_is_worse():
    results = scored(start=0.3, narrow=0.1, wide=0.5, cautious=0.2, bold=0.1)
    (wider,) = AROUND.next_round(results)

    assert AROUND.next_round([*results, result(wider, 0.4)]) == []


def test_what_improved_on_several_dimensions_is_combined():
    results = scored(start=0.3, narrow=0.1, wide=0.5, cautious=0.4, bold=0.35)
    trials = AROUND.next_round(results)

    assert changes(trials) == [{"factors": 128, "alpha": 4.0}, {"factors": 256}]
    combined, wider = trials
    results += [result(combined, 0.6), result(wider, 0.4)]
    # It is at the end of one dimension; of the other, more was tried and worse.
    assert changes(AROUND.next_round(results)) == [{"factors": 128, "alpha": 2.0}]


def test_the_order_of_the_results_makes_no_difference():
    results = scored(start=0.3, narrow=0.1, wide=0.5, cautious=0.4, bold=0.35)

    assert AROUND.next_round(results) == AROUND.next_round(results[::-1])


@pytest.mark.parametrize("failed", ["start", "narrow", "cautious"])
def test_a_failed_trial_ends_nothing(failed):
    scores = {"start": 0.3, "narrow": 0.1, "wide": 0.5, "cautious": 0.2, "bold": 0.1, failed: None}

    assert {"factors": 256} in changes(AROUND.next_round(scored(**scores)))


def test_nothing_follows_where_all_failed():
    assert AROUND.next_round(scored(start=None, narrow=None, wide=None, cautious=None, bold=None)) == []


def test_a_direction_that_failed_is_not_tried_again():
    results = scored(start=0.3, narrow=0.1, wide=0.5, cautious=0.2, bold=0.1)
    (wider,) = AROUND.next_round(results)

    assert AROUND.next_round([*results, result(wider, None)]) == []
