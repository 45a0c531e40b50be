"""What an evaluation says of the tuned model."""

import numpy as np
import pyarrow as pa
import pytest

from recsys_pipeline.core.beyond_accuracy import BeyondAccuracy
from recsys_pipeline.core.comparison import Interval
from recsys_pipeline.core.evaluation import (
    ABLATIONS,
    BLEND,
    LEAKING,
    NO_RIVALS,
    NOTEBOOK,
    POPULARITY,
    TUNED,
    HeldOutRanks,
    Quality,
    worth_of_terms,
)
from recsys_pipeline.core.evaluation_tables import models_table, segments_table
from recsys_pipeline.core.presets import Preset
from recsys_pipeline.reporting.evaluation import blend_terms_lines, evaluation_metadata, verdict

WORSE, EQUAL, BETTER = Interval(-0.2, -0.1), Interval(-0.1, 0.1), Interval(0.1, 0.2)


def quality(mean, difference=EQUAL, mean_difference=None, seeds=1):
    interval = Interval(mean - 0.02, mean + 0.02)
    middle = (difference.low + difference.high) / 2 if mean_difference is None else mean_difference
    return Quality(mean, 0.01, interval, middle, difference, mean, mean, mean, seeds)


def shown(models):
    ranks = HeldOutRanks(
        seed=np.zeros(3, int),
        users=np.arange(3, dtype=np.int32),
        items=np.arange(3, dtype=np.int32),
        interactions_of_user=np.array([1, 2, 3]),
        popularity_of_item=np.array([3, 2, 1]),
        ranks={name: np.array([1, 2, 11]) for name in models},
    )
    lists = {name: BeyondAccuracy(0.5, 2.0, 0.25, 1.0) for name in models if name != LEAKING}
    tables = (
        models_table(models, lists, dict.fromkeys(models, 1.5)),
        segments_table(ranks, 3, 10),
    )
    return evaluation_metadata(models, lists, *tables, ranks, 10, "2 dimensions are at the ends")


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        pytest.param(
            {POPULARITY: quality(0.1, WORSE, -0.2), "item-kNN": quality(0.2, WORSE, -0.1)},
            "the tuned model (0.3000) is better than item-kNN (0.2000), the next best",
            id="better",
        ),
        pytest.param(
            {"item-kNN": quality(0.2)},
            "the tuned model (0.3000) is not distinguishable from item-kNN (0.2000), the next best; "
            "preset quick of grid_search_results looks further",
            id="not distinguishable",
        ),
        pytest.param(
            {"item-kNN": quality(0.4, BETTER)},
            "the tuned model (0.3000) is worse than item-kNN (0.4000), the best of the others; "
            "preset quick of grid_search_results looks further",
            id="worse",
        ),
        pytest.param(
            {
                POPULARITY: quality(0.1, WORSE),
                BLEND: quality(0.4, BETTER),
                **{name: quality(0.9, BETTER) for name in NO_RIVALS},
            },
            "the tuned model (0.3000) is better than popularity (0.1000), the next best, "
            "and worse than its blend (0.4000)",
            id="neither the blend nor what shows an effect is one of the others",
        ),
        pytest.param(
            {POPULARITY: quality(0.1, WORSE), **{name: quality(0.35, BETTER) for name in ABLATIONS}},
            "the tuned model (0.3000) is better than popularity (0.1000), the next best",
            id="nor is a blend without some of its terms",
        ),
    ],
)
def test_the_verdict(others, expected):
    assert verdict({TUNED: quality(0.3, Interval(0, 0)), **others}, Preset.quick) == expected


def test_where_no_preset_looks_further_the_verdict_names_none():
    models = {TUNED: quality(0.3, Interval(0, 0)), "item-kNN": quality(0.4, BETTER)}
    assert (
        verdict(models) == "the tuned model (0.3000) is worse than item-kNN (0.4000), the best of the others"
    )


def test_means_over_fewer_seeds_are_told_beside_those_of_the_tuned_model_over_the_same_ones():
    """On its one seed the other model is better, though its mean is below that of all three."""
    models = {
        TUNED: quality(0.3, seeds=3),
        POPULARITY: quality(0.1, WORSE, seeds=3),
        NOTEBOOK: quality(0.28, BETTER, 0.15, seeds=1),
    }

    assert verdict(models) == (
        "the tuned model (0.3000) is worse than notebook's ALS (0.2800 on 1 of 3 seeds, on which the tuned "
        "model has 0.1300), the best of the others"
    )
    assert shown(models)["At a glance"] == (
        "MAP@10 0.3000 (0.2800 to 0.3200) on unseen data, 3 seeds; "
        "worse than notebook's ALS, the best of the others, on 1 of 3 seeds, by 0.1500, 95 % 0.1000 to "
        "0.2000; better than popularity by 0.1500, 95 % 0.1000 to 0.2000; 2 dimensions are at the ends"
    )


def test_what_a_term_of_the_blend_is_worth_has_a_table_of_its_own():
    models = {
        TUNED: quality(0.3),
        BLEND: quality(0.4, BETTER),
        ABLATIONS[1]: quality(0.35, BETTER),
        POPULARITY: quality(0.1, WORSE),
    }
    to_blend = {BLEND: quality(0.4), ABLATIONS[1]: quality(0.35, Interval(-0.07, 0.01), -0.03)}
    (worth,) = worth_of_terms(to_blend)

    assert ABLATIONS[1] not in shown(models)["models"].md_str + shown(models)["segments"].md_str
    assert blend_terms_lines([worth._asdict()], 10).splitlines()[2:] == [
        "| the item graph | 0.3500 | +0.0300 | -0.0100 to +0.0700 |"
    ]


def test_without_a_blend_nothing_differs_from_it():
    column = models_table({TUNED: quality(0.3)}, {}, {TUNED: 1.5})["difference_to_blend_low"]

    assert (column.type, column.to_pylist()) == (pa.float64(), [None])


def test_the_figures_are_those_of_the_tuned_model():
    metadata = shown({TUNED: quality(0.3), POPULARITY: quality(0.1, WORSE)})

    assert metadata["MAP@10 (unseen)"] == metadata["NDCG@10"] == metadata["Recall@10"] == 0.3
    assert (metadata["Users"], metadata["Held-out interactions"], metadata["Coverage"]) == (3, 3, 0.5)
    assert metadata["Held-out share out of reach"] == 0
    assert "leak of weights" not in metadata


def test_the_leak_of_weights_is_what_weights_of_all_interactions_add():
    metadata = shown({TUNED: quality(0.3), POPULARITY: quality(0.1), LEAKING: quality(0.45, BETTER, 0.12)})

    # On the seeds that both were measured on, which need not be all.
    assert metadata["leak of weights"] == (
        "weights of all interactions would change MAP by +0.1200, 95 % +0.1000 to +0.2000"
    )


def test_models_are_rows_and_segments_are_rows_with_a_column_a_model():
    metadata = shown({TUNED: quality(0.3), POPULARITY: quality(0.1, WORSE)})
    models, segments = (metadata[name].md_str.splitlines() for name in ("models", "segments"))

    assert [line.split(" | ")[0] for line in models[2:]] == ["| tuned ALS", "| popularity"]
    assert "| -0.2000 to -0.1000 |" in models[3]
    assert segments[0].endswith("| held-out interactions | tuned ALS | popularity |")
    assert segments[2].startswith("| user | few interactions (up to 1) | 1 | 1.0000 +- ")


def test_a_row_says_on_how_many_seeds_and_nothing_of_lists_that_there_are_not():
    models = {
        TUNED: quality(0.3, seeds=3),
        POPULARITY: quality(0.1, WORSE, seeds=3),
        LEAKING: quality(0.45, BETTER, 0.12, seeds=1),
    }
    tuned, _, leaking = (line.split(" | ") for line in shown(models)["models"].md_str.splitlines()[2:])

    assert tuned[4:] == ["3", "1.5", "0.3000", "0.3000", "0.3000", "50.0%", "2.0", "100.0% |"]
    assert [cell.strip("| ") for cell in leaking[4:]] == [
        *("1", "1.5", "0.4500", "0.4500", "0.4500", "", "", ""),
    ]
