"""What a search says of its trials."""

import numpy as np
import pytest

from recsys_pipeline.core.comparison import Choice, Interval, Prefer, Switch
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.results import results_table
from recsys_pipeline.core.search import KnownTrial, TrialResult
from recsys_pipeline.core.selected import SELECTED_BY
from recsys_pipeline.core.selecting import MAP_AT_10, Estimate, SelectBy, Selection
from recsys_pipeline.reporting.known import told_known
from recsys_pipeline.reporting.model import told_ends, told_hyperparameters
from recsys_pipeline.reporting.trials import (
    earlier_searches,
    search_metadata,
    told_choice,
    told_corners,
)

TRIAL = Hyperparameters(factors=4, regularization=0.1, alpha=5.0, iterations=6, bm25_K1=100.0, bm25_B=0.8)


def result(mean, **changes):
    scores = Scores(mean, 0.01, mean, mean, mean, mean)
    return TrialResult(TRIAL.replace(**changes), scores, 1.0, ranks=np.array([1], np.uint8))


def shown():
    ranking = [
        result(0.4),
        result(0.3, weighting="none"),
        result(0.2, alpha=6.0),
        TrialResult(TRIAL.replace(alpha=7.0), None, float("nan"), "diverged"),
    ]
    differences = [Interval(0.0, 0.0), Interval(-0.2, 0.1), Interval(-0.3, -0.1), None]
    return search_metadata(results_table(ranking, differences, chosen=0, incumbent=1), blend=None)


def test_trials_are_told_by_what_they_differ_in_and_how_sure_their_order_is():
    header, _, *rows = shown()["best trials"].md_str.splitlines()

    assert header.startswith(r"|  | alpha | bm25\_K1 | bm25\_B | weighting | MAP@10 |")
    assert rows[0].startswith("| chosen | 5 | 100 | 0.8 | bm25 | 0.4000 +- 0.0100 |")
    assert rows[1].startswith("| incumbent | 5 |  |  | none | 0.3000 +- 0.0100 | -0.2000 to +0.1000 | no |")
    assert "| -0.3000 to -0.1000 | yes |" in rows[2]
    assert rows[3].startswith("|  | 7 | 100 | 0.8 | bm25 |  |  | failed |")


def test_the_figures_are_those_of_the_chosen_trial_and_failures_are_counted():
    metadata = shown()

    assert metadata["MAP@10 (search)"] == 0.4
    assert (metadata["Trials"], metadata["Failed trials"]) == (4, 1)
    assert metadata["as good as the best but for chance"] == "1 other trial"


def test_it_says_where_the_chosen_is_at_the_end_of_what_was_tried():
    assert shown()["at the ends of the lists"] == (
        "alpha 5 is the smallest tried: widen the list, or set preset quick"
    )


def test_several_ends_are_one_sentence_a_side():
    ranking = [result(0.4), result(0.3, factors=2), result(0.3, iterations=3), result(0.2, alpha=6.0)]
    ranking.append(result(0.1, bm25_K1=200.0))
    table = results_table(ranking, [Interval(0.0, 0.0)] * len(ranking), chosen=0)

    assert told_ends(table) == (
        "factors 4 and iterations 6 are the largest tried; alpha 5 and bm25_K1 100 are the smallest tried: "
        "widen these lists, or set preset quick"
    )


@pytest.mark.parametrize(
    ("preset", "what_to_do"),
    [
        ("quick", "set preset thorough, or go on with lists of your own"),
        ("thorough", "go on with lists of your own"),
    ],
)
def test_of_a_preset_it_tells_the_factors_alone_and_what_looks_further(preset, what_to_do):
    ranking = [result(0.4), result(0.3, factors=2), result(0.3, iterations=3), result(0.2, alpha=6.0)]
    table = results_table(ranking, [Interval(0.0, 0.0)] * len(ranking), chosen=0)

    assert told_ends(with_metadata(table, {"preset": preset})) == (
        f"factors 4 is the largest tried: {what_to_do}"
    )


def test_or_that_it_is_nowhere():
    ranking = [result(0.4, alpha=5.0), result(0.3, alpha=4.0), result(0.3, alpha=6.0)]
    table = results_table(ranking, [Interval(0.0, 0.0)] * 3, chosen=0)

    assert told_ends(table) == ""
    assert search_metadata(table, blend=None)["at the ends of the lists"] == "nothing"


def test_trials_that_are_likely_to_be_ruined_are_counted_and_one_is_explained():
    assert told_corners({}) == ""
    assert told_corners({TRIAL: "why"}).startswith("1 trial is likely to be ruined, such as factors 4, ")
    assert told_corners({TRIAL: "why", TRIAL.replace(alpha=6.0): "as well"}) == (
        "2 trials are likely to be ruined, such as factors 4, regularization 0.1, alpha 5, iterations 6, "
        "bm25_K1 100, bm25_B 0.8: why"
    )


def test_a_choice_is_worth_what_its_best_trial_is():
    metadata = shown()

    assert metadata["best by weighting"].md_str.splitlines()[2:] == [
        "| bm25 | 0.4000 +- 0.0100 | +0.0000 to +0.0000 |",
        "| none | 0.3000 +- 0.0100 | -0.2000 to +0.1000 |",
    ]
    assert "best by strengths" not in metadata


# --- Another metric than MAP@10 ---

BY = Selection(SelectBy.NDCG, 20)


def test_what_selects_stands_first_and_map_at_10_beside_it():
    ranking = [result(0.3), result(0.4, weighting="none")]
    ranking = [
        each._replace(selected=Estimate(value, 0.02)) for each, value in zip(ranking, (0.6, 0.5), strict=True)
    ]
    differences = [Interval(0.0, 0.0), Interval(-0.2, 0.1)]
    table = results_table(ranking, differences, chosen=0, selection=BY)
    metadata = search_metadata(with_metadata(table, {SELECTED_BY: BY.as_dict()}), blend=None)
    header, _, best, _ = metadata["best trials"].md_str.splitlines()

    assert (metadata["MAP@10 (search)"], metadata["NDCG@20"]) == (0.3, 0.6)
    assert metadata["At a glance"].startswith("NDCG@20 0.6000 +- 0.0200 of the best of 2 trials")
    assert "| NDCG@20 | 95 % interval of the difference to the best | distinguishable | MAP@10 |" in header
    assert "| 0.6000 +- 0.0200 | +0.0000 to +0.0000 | no | 0.3000 |" in best
    header, _, first, *_ = metadata["best by weighting"].md_str.splitlines()
    assert header.startswith("| weighting | best NDCG@20 |")
    assert first.startswith("| bm25 | 0.6000 +- 0.0200 |")


# --- Earlier searches ---


def known(strengths=None, k=10, seed=42, mapping="default"):
    found = result(0.25, strengths=mapping)
    search = {"weights": "training", "solver": "batched", "seed": seed, "k": k}
    return KnownTrial(search, found.hyperparameters, strengths or {"view": 1.0}, found.scores, 1.0, None)


def test_earlier_searches_are_a_table_of_the_best_with_what_differs():
    told = earlier_searches([(known(seed=n), 0.25) for n in range(12)], MAP_AT_10).md_str.splitlines()

    assert told[0] == "12 trials are known over the same data that are not in this table; the best:"
    assert told[2] == "| MAP@10 | weights | solver | seed | k | hyperparameters |"
    assert told[4].startswith("| 0.2500 +- 0.0100 | training | batched | 0 | 10 | factors 4, ")
    assert len(told[4:]) == 10


def test_they_are_compared_by_what_selects_where_their_ranks_reach_so_far():
    told = earlier_searches([(known(k=20), 0.5), (known(), None)], BY).md_str.splitlines()

    assert told[2].startswith("| NDCG@20 | MAP@10 | weights |")
    assert told[4].startswith("| 0.5000 | 0.2500 +- 0.0100 | training | batched | 42 | 20 |")
    assert told[5].startswith("|  | 0.2500 +- 0.0100 | training | batched | 42 | 10 |")


def test_that_there_are_none_is_said_too():
    assert earlier_searches([], MAP_AT_10) == "nothing else is known of this data"


def test_a_mapping_that_was_defined_anew_is_told_by_what_it_says():
    searched = [
        known({"click": 2.0, "view": 1.0}, mapping="clicks"),
        known({"click": 5.0}, mapping="clicks"),
        known({"view": 2.0}, mapping="views"),
    ]

    assert [told.rsplit("strengths ", 1)[1] for told in told_known(searched)] == [
        "clicks (clicks: click 2, view 1)",
        "clicks (clicks: click 5)",
        "views",
    ]


# --- A model ---


def test_a_model_is_told_without_what_it_does_not_use_or_has_as_usual():
    assert told_hyperparameters(TRIAL.replace(ensemble_size=3)) == (
        "factors 4, regularization 0.1, alpha 5, iterations 6, bm25_K1 100, bm25_B 0.8, ensemble_size 3"
    )
    assert told_hyperparameters(TRIAL.replace(weighting="none")) == (
        "factors 4, regularization 0.1, alpha 5, iterations 6, weighting none"
    )


# --- What became of the released configuration ---

BETTER = {"lead": 0.02, "interval": Interval(0.01, 0.03)}
PERHAPS_BETTER = {"lead": 0.0004, "interval": Interval(-0.0002, 0.001)}
RELEASE = "the configuration of release 7"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"incumbent": 2, "chosen": 2, "switch": Switch.significant, **PERHAPS_BETTER},
            f"{RELEASE} stays: the best trial is better by 0.0004, 95 % -0.0002 to 0.0010",
        ),
        (
            {"incumbent": 2, "switch": Switch.significant, **BETTER},
            f"{RELEASE} is replaced: the best trial is better by 0.0200, 95 % 0.0100 to 0.0300",
        ),
        (
            {"incumbent": 2, **PERHAPS_BETTER},
            f"{RELEASE} is replaced: the best trial is better by 0.0004, 95 % -0.0002 to 0.0010, "
            "which may be chance (switch always)",
        ),
        (
            {"incumbent": 0, "lead": 0.0, "interval": Interval(0.0, 0.0)},
            f"{RELEASE} stays: it is the best trial",
        ),
        (
            {"incumbent": 2, "chosen": 2, "prefer": Prefer.simplest, **PERHAPS_BETTER},
            f"{RELEASE} stays: it is the simplest trial that equals the best but for chance",
        ),
        (
            {"incumbent": 2, "chosen": 1, "prefer": Prefer.simplest, **BETTER},
            f"{RELEASE} is replaced: the best trial is better by 0.0200, 95 % 0.0100 to 0.0300; "
            "the simplest trial that equals the best but for chance is chosen",
        ),
        ({"incumbent": 3}, f"{RELEASE} was not compared: diverged; the best trial is chosen"),
    ],
)
def test_what_became_of_the_released_configuration_is_a_sentence_with_its_reason(changes, sentence):
    choice = Choice(0, None, None, None, Prefer.best, Switch.always)._replace(**changes)

    assert told_choice(choice, "7", "diverged") == sentence


def test_as_is_that_there_was_none():
    choice = Choice(0, None, None, None, Prefer.best, Switch.always)
    told = told_choice(choice, None, "no model is released yet")

    assert told == "no model is released yet; the best trial is chosen"
