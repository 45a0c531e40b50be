"""What the pictures show: labels, order and points, not pixels."""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from recsys_pipeline.core.distribution import Frequencies
from recsys_pipeline.core.evaluation import ABLATIONS
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.reporting.pictures import evaluation, feedback, history, search
from recsys_pipeline.reporting.pictures.style import rendered

PNG = b"\x89PNG\r\n\x1a\n"
HOSTILE = "$x_1^$ <b>&|`" + "long " * 30 + "名前\n"
HYPERPARAMETERS = {
    "factors": 32,
    "regularization": 0.01,
    "alpha": 10.0,
    "iterations": 10,
    "bm25_K1": 50.0,
    "bm25_B": 0.6,
    "nu": 0.0,
    "unobserved_weight": 1.0,
    "confidence": "alpha * w",
    "weighting": "bm25",
    "strengths": "default",
    "ensemble_size": 1,
}


def trials(*rows):
    """A table of trials, the first chosen; MAP@10 of None is of one that failed."""
    best = rows[0]["MAP@10"]
    told = []
    for place, row in enumerate(rows):
        figure = row["MAP@10"]
        gap = None if figure is None else figure - best
        told.append(
            {
                **HYPERPARAMETERS,
                "map_at_10_standard_error": None if figure is None else 0.002,
                "difference_low": gap and gap - 0.003,
                "difference_high": gap and gap + 0.003,
                "distinguishable": gap is not None and gap + 0.003 < 0,
                "chosen": place == 0,
                "incumbent": place == 1,
                **row,
            }
        )
    return pa.Table.from_pylist(told)


def grid():
    return trials(
        {"factors": 64, "alpha": 20.0, "MAP@10": 0.09},
        {"factors": 64, "alpha": 10.0, "MAP@10": 0.088},
        {"factors": 32, "alpha": 20.0, "MAP@10": 0.071},
        {"factors": 32, "alpha": 10.0, "MAP@10": 0.07},
        {"factors": 16, "alpha": 10.0, "MAP@10": None},
    )


def texts(axes):
    return [text.get_text() for text in axes.texts]


def labels(ticks):
    return [text.get_text() for text in ticks]


def points(axes):
    """The coordinates of what has an interval, in order."""
    return axes.collections[-1].get_offsets().tolist()


def test_popularity_is_the_share_with_at_least_so_many_interactions():
    drawn = feedback.popularity(Frequencies.of(np.array([1, 1, 2, 4])), Frequencies.of(np.array([1, 3, 4])))

    users, items = drawn.figure.axes
    assert users.lines[0].get_xydata().tolist() == [[1, 1], [2, 0.5], [4, 0.25]]
    assert items.lines[0].get_xdata().tolist() == [1, 3, 4]
    assert [axes.get_xscale() + axes.get_yscale() for axes in (users, items)] == ["loglog", "loglog"]
    assert users.get_title(loc="left") == "4 users: half have 2 or more, one has 4"
    assert drawn.title.startswith("The most popular 10 % of the items have 50 % of the interactions")
    assert items.get_xlabel() == "interactions of the item"


def test_kinds_of_events_are_ordered_and_the_rare_ones_are_one_bar():
    counts = {f"kind {n:02}": n for n in range(1, 16)}

    (axes,) = feedback.events_by_kind(counts).figure.axes

    assert labels(axes.get_yticklabels())[:2] == ["kind 15", "kind 14"]
    assert labels(axes.get_yticklabels())[-1] == "3 other kinds"
    assert [bar.get_width() for bar in axes.patches][-1] == 1 + 2 + 3
    assert texts(axes)[0] == "15  (12 %)"


def test_a_name_from_the_feed_is_cut_and_is_no_formula():
    drawn = feedback.events_by_kind({HOSTILE: 3, "view": 1})

    label = drawn.figure.axes[0].get_yticklabels()[0]
    assert label.get_text() == "$x_1^$ <b>&|`long long long…"
    assert not label.get_parse_math()
    assert not drawn.figure._suptitle.get_parse_math()
    assert rendered(drawn).content.startswith(PNG)


def test_without_events_or_timestamps_there_is_no_picture():
    assert feedback.events_by_kind({}) is None
    assert feedback.events_by_day({}) is None


def test_each_kind_has_its_days_and_a_day_without_events_counts_none():
    days = {
        "view": {date(2026, 1, 1): 4, date(2026, 1, 3): 2},
        "buy": {date(2026, 1, 3): 1},
    }

    drawn = feedback.events_by_day(days)

    views, buys = drawn.figure.axes
    assert views.lines[0].get_ydata().tolist() == [4, 0, 2]
    assert buys.lines[0].get_ydata().tolist() == [0, 0, 1]
    assert views.get_title(loc="left") == "view: 6"
    assert labels(buys.get_xticklabels()) == ["2026-01-01", "2026-01-02", "2026-01-03"]
    assert drawn.title.startswith("7 events on 3 days; the busiest, 2026-01-01")


def test_a_stray_day_does_not_empty_the_picture():
    days = {"view": {date(1970, 1, 1): 1} | {date(2026, 1, 1) + timedelta(n): 500 for n in range(10)}}

    drawn = feedback.events_by_day(days)

    assert len(drawn.figure.axes[0].lines[0].get_ydata()) == 10
    assert drawn.title.endswith("1 event of other days left out")


def test_the_hyperparameter_that_explains_most_comes_first():
    drawn = search.hyperparameters(grid())

    factors, alpha = drawn.figure.axes
    assert (factors.get_xlabel(), alpha.get_xlabel()) == ("factors", "alpha")
    assert labels(factors.get_xticklabels()) == ["32", "64"]
    assert [y for _, y in points(factors)] == [0.071, 0.09]
    assert drawn.title == "factors matters most: MAP@10 up to 0.0900 with 64, 0.0710 with 32"


def test_many_values_are_shown_in_ranges():
    drawn = search.hyperparameters(
        trials(*({"regularization": 0.01 * 2**n, "MAP@10": 0.09 - 0.001 * n} for n in range(10)))
    )

    (axes,) = drawn.figure.axes
    assert labels(axes.get_xticklabels())[0] == "0.01 to 0.035"
    assert len(axes.get_xticks()) == 5


def test_a_ruined_trial_does_not_flatten_the_others():
    rows = [{"factors": n, "MAP@10": 0.09 - 0.001 * n} for n in range(1, 8)]

    drawn = search.hyperparameters(trials(*rows, {"factors": 8, "MAP@10": 0.0001}))

    assert drawn.figure.axes[0].get_ylim()[0] > 0.05
    assert drawn.title.endswith("1 trial below the picture")


def test_the_heat_map_has_the_best_trial_of_each_pair_of_values():
    drawn = search.heat_map(grid())

    (axes,) = drawn.figure.axes
    assert texts(axes) == ["0.0700", "0.0880", "0.0710", "0.0900"]
    assert labels(axes.get_yticklabels()) == ["10", "20"]
    assert "with factors 64 and alpha 20" in drawn.title


def test_trials_are_ordered_and_marked():
    drawn = search.best_trials(grid())

    (axes,) = drawn.figure.axes
    lines = labels(axes.get_yticklabels())
    assert [line.split() for line in lines[:3]] == [
        ["factors", "alpha"],
        ["64", "20", "chosen"],
        ["64", "10", "released"],
    ]
    assert [x for x, _ in points(axes)] == [0.09, 0.088, 0.071, 0.07]
    assert drawn.title == (
        "The best of 4 trials has MAP@10 0.0900; 1 of the others cannot be told from it; 1 trial failed"
    )


def test_one_trial_is_a_picture_too():
    one = trials({"MAP@10": 0.09})

    assert search.hyperparameters(one).title == "One trial: MAP@10 0.0900"
    assert search.best_trials(one).title == "The best of 1 trial has MAP@10 0.0900"
    assert search.heat_map(one) is None


def test_what_selects_is_what_is_drawn():
    table = trials({"MAP@10": 0.09, "ndcg_at_20": 0.2, "ndcg_at_20_standard_error": 0.01})
    by_ndcg = with_metadata(table, {"selected_by": {"metric": "NDCG", "k": 20}})

    drawn = search.hyperparameters(by_ndcg)

    assert drawn.title == "One trial: NDCG@20 0.2000"
    assert drawn.figure.axes[0].get_ylabel() == "NDCG@20 (search)"


def model(name, figure, to_tuned=0.0):
    return {
        "model": name,
        "map": figure,
        "map_low": figure - 0.005,
        "map_high": figure + 0.005,
        "difference_to_tuned_low": to_tuned - 0.003,
        "difference_to_tuned_high": to_tuned + 0.003,
    }


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (0.08, "it beats EASE, the best of the others, by 0.0100"),
        (0.089, "it cannot be told from EASE (0.0890)"),
        (0.1, "it is below EASE by 0.0100"),
    ],
)
def test_the_title_says_how_the_model_compares_with_the_best_of_the_others(other, told):
    rows = [model("tuned ALS", 0.09), model("popularity", 0.01, -0.08), model("EASE", other, other - 0.09)]

    drawn = evaluation.models(pa.Table.from_pylist(rows), 10)

    assert drawn.title == f"tuned ALS: MAP@10 0.0900; {told}"


def test_models_are_ordered_and_what_shows_an_effect_is_left_out():
    rows = [
        model("tuned ALS", 0.09),
        model(ABLATIONS[0], 0.2),
        model("EASE", 0.1, 0.01),
        model("popularity", 0.01, -0.08),
    ]

    (axes,) = evaluation.models(pa.Table.from_pylist(rows), 10).figure.axes

    assert labels(axes.get_yticklabels()) == ["EASE", "tuned ALS", "popularity"]
    assert texts(axes)[0] == "0.1000  (0.0950 to 0.1050)"


def segment(kind, name, of, figure):
    return {
        "kind": kind,
        "segment": name,
        "held_out_interactions": 1000,
        "model": of,
        "map": figure,
        "map_standard_error": 0.004,
    }


def test_segments_compare_the_model_with_few_others():
    rows = [
        segment(kind, name, of, figure + better)
        for of, better in {
            "tuned ALS": 0.02, "item-kNN": 0.01, "graph filter": 0.015, "EASE": 0.005, "popularity": 0.0,
        }.items()
        for kind, name, figure in (("user", "few interactions (up to 3)", 0.1), ("item", "tail", 0.001))
    ]  # fmt: skip

    drawn = evaluation.segments(pa.Table.from_pylist(rows), 10)

    (legend,) = drawn.figure.legends
    assert labels(legend.get_texts()) == ["tuned ALS", "graph filter", "item-kNN", "popularity"]
    users, items = drawn.figure.axes
    assert labels(users.get_xticklabels()) == ["few interactions\n(up to 3)\n1,000 held out"]
    assert items.get_title(loc="left") == "items"
    assert drawn.title == (
        "MAP@10 of tuned ALS: highest, 0.1200, for users with few interactions (up to 3); lowest, 0.0210, "
        "for items of the tail"
    )


def night(number, figure, released=True, events=1000.0):
    return history.Night(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=number), figure, events, released)


def test_runs_are_in_order_and_releases_are_marked():
    drawn = history.history([night(0, 0.09), night(1, 0.08, released=False), night(2, 0.091)], 10)

    upper, lower = drawn.figure.axes
    released, refused = upper.collections
    assert released.get_offsets().tolist() == [[0, 0.09], [2, 0.091]]
    assert refused.get_offsets().tolist() == [[1, 0.08]]
    assert [bar.get_height() for bar in lower.patches] == [1000] * 3
    assert labels(lower.get_xticklabels())[-1] == "2026-01-03\n00:00"
    assert drawn.title == (
        "MAP@10 is 0.0910; it was 0.0800 to 0.0900 in the 2 runs before; 2 of 3 were released"
    )


def test_the_first_run_has_a_picture_and_an_unknown_volume_no_bar():
    drawn = history.history([night(0, 0.09, events=None)], 10)

    assert drawn.title == "MAP@10 is 0.0900 in the first run"
    assert len(drawn.figure.axes[1].patches) == 0
    assert history.history([], 10) is None


def test_the_same_input_gives_the_same_small_file_of_the_width_of_the_dialog():
    first, second = (rendered(search.best_trials(grid())) for _ in range(2))

    assert first == second
    assert first.file == "best_trials.png"
    assert int.from_bytes(first.content[16:20]) == 900
    assert len(first.content) < 25_000
    assert b"Software" not in first.content
    assert b"tIME" not in first.content
