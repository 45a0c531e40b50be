"""What is said of the baselines."""

import pytest

from recsys_pipeline.core.baseline_tables import Lead
from recsys_pipeline.core.baseline_tuning import Baseline, Family
from recsys_pipeline.core.comparison import Difference, Interval
from recsys_pipeline.core.presets import Preset
from recsys_pipeline.core.selecting import MAP_AT_10, SelectBy, Selection
from recsys_pipeline.reporting.baselines import (
    baselines_metadata,
    told_baseline,
    told_lead,
    told_strongest,
    why_no_lead,
)
from recsys_pipeline_tests.core.small_feeds import baselines_of, interactions_of, shop_events, split_of

KNN = Baseline(Family.item_knn, "default", "presence", neighbours=400, shrinkage=100.0)
SPLIT = split_of(interactions_of(shop_events()), [0, 8, 16, 24])


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        (KNN, "item-kNN (weighting presence, neighbours 400, shrinkage 100)"),
        (KNN._replace(strengths="buys"), "item-kNN (strengths buys, weighting presence, neighbours 400, "),
        (Baseline(Family.popularity), "popularity"),
    ],
)
def test_a_baseline_is_told_by_its_name_and_what_it_was_tuned_to(baseline, expected):
    assert told_baseline(baseline).startswith(expected)


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        pytest.param(
            Difference(0.012, Interval(0.01, 0.014)),
            "the best trial is better than popularity, the strongest baseline (MAP@10 0.0800) by 0.0120, "
            "95 % 0.0100 to 0.0140",
            id="better",
        ),
        pytest.param(
            Difference(0.002, Interval(-0.001, 0.005)),
            "the best trial is not better than popularity, the strongest baseline (MAP@10 0.0800): the "
            "difference is +0.0020, 95 % -0.0010 to +0.0050; "
            "preset quick of grid_search_results looks further",
            id="perhaps by chance",
        ),
        pytest.param(
            Difference(-0.02, Interval(-0.03, -0.01)),
            "the best trial is not better than popularity, the strongest baseline (MAP@10 0.0800): the "
            "difference is -0.0200, 95 % -0.0300 to -0.0100; "
            "preset quick of grid_search_results looks further",
            id="worse",
        ),
    ],
)
def test_how_the_search_compares_is_told_plainly(difference, expected):
    assert told_lead(Lead(Baseline(Family.popularity), 0.08, difference), Preset.quick) == expected


def test_so_is_that_it_compares_on_some_of_the_held_out_interactions():
    lead = Lead(
        Baseline(Family.popularity), 0.08, Difference(0.012, Interval(0.01, 0.014)), n_compared=10_000
    )

    assert "(MAP@10 0.0800 on 10,000 of the held-out interactions) by 0.0120" in told_lead(lead, None)


def test_so_is_that_there_is_nothing_to_compare_with():
    nothing = baselines_of(SPLIT, [], why_not={Family.ease: "why"})

    assert why_no_lead(nothing, MAP_AT_10) == "no baseline was measured to compare the best trial with"


def test_and_that_the_ranks_of_the_baselines_do_not_reach_so_far():
    assert why_no_lead(baselines_of(SPLIT, [KNN]), Selection(SelectBy.NDCG, 20)) == (
        "the best trial is not compared with the baselines: their ranks are known up to 10, and NDCG@20 "
        "needs 20; give `baselines` the k of the search and materialize both"
    )


def test_what_they_were_tuned_by_is_said_where_the_search_goes_by_another():
    difference = Difference(0.012, Interval(0.01, 0.014))
    lead = Lead(Baseline(Family.popularity), 0.08, difference, Selection(SelectBy.Recall, 5))

    assert "the strongest baseline (Recall@5 0.0800, tuned by MAP@10) by 0.0120" in told_lead(lead)


def test_the_metadata_say_what_is_strongest_and_what_was_not_measured():
    tables = baselines_of(
        SPLIT, [KNN, Baseline(Family.popularity)], ranks=[1, 11], why_not={Family.ease: "why"}
    )
    metadata = baselines_metadata(tables["baselines"])

    assert (metadata["MAP@10 of the strongest"], metadata["Configurations"]) == (0.25, 2)
    assert metadata["At a glance"] == (
        "the strongest baseline is item-kNN (weighting presence, neighbours 400, shrinkage 100): "
        "MAP@10 0.2500 +- 0.2500"
    )
    assert metadata["not measured"].md_str == "- EASE: why"
    assert len(metadata["best of each family"].md_str.splitlines()) == 4


def test_or_that_nothing_was():
    nothing = baselines_of(SPLIT, [], why_not={Family.ease: "why"})["baselines"]

    assert told_strongest(nothing) == "no baseline could be measured"
    assert "MAP@10" not in baselines_metadata(nothing)
