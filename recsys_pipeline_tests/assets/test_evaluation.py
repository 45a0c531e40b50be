"""The evaluation: interactions that the search never scored, training that never saw them."""

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.dataset as ds
import pytest
from dagster import DagsterInvalidConfigError, Failure, build_asset_context, validate_run_config

from recsys_pipeline.assets.evaluation import EvaluationConfig, EvaluationProtocol, evaluation
from recsys_pipeline.checks.evaluation import nothing_evaluated_was_scored_by_the_search
from recsys_pipeline.core.baseline_tuning import Baseline, Family
from recsys_pipeline.core.columns import STRENGTH
from recsys_pipeline.core.comparison import Interval
from recsys_pipeline.core.evaluation import GRAPH_FILTER, ITEM_KNN, LEAKING, NOTEBOOK, POPULARITY, TUNED
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.metadata import stored_metadata, with_metadata
from recsys_pipeline.core.metrics import Scores
from recsys_pipeline.core.results import results_table
from recsys_pipeline.core.search import TrialResult
from recsys_pipeline.core.splitting import HoldOutMethod, leave_one_out
from recsys_pipeline.definitions import defs
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.core.small_feeds import (
    BASELINES,
    baselines_of,
    given_split,
    interactions_of,
    matrix_of,
    shop_events,
    split_of,
)
from recsys_pipeline_tests.worlds import N_USERS, metadata_of

pytestmark = pytest.mark.runs

MODELS = [
    "tuned ALS",
    "graph filter",
    "item-kNN",
    "EASE",
    "notebook's ALS",
    "popularity",
    "tuned ALS, weights of all interactions",
]
CHECK = "nothing_evaluated_was_scored_by_the_search"


# --- In the graph --------------------------------------------------------------------------------


def test_every_model_is_measured_on_the_same_interactions(shared_result, shared_warehouse):
    tables = shared_warehouse.read_tables("evaluation")
    metadata = metadata_of(shared_result, "evaluation")

    assert tables["models"]["model"].to_pylist() == MODELS
    for row in tables["models"].to_pylist():
        assert 0 <= row["map_low"] <= row["map"] <= row["map_high"] <= 1
        assert row["hit_rate"] == row["recall"]
        of_its_own_fit = row["model"] in (NOTEBOOK, LEAKING)
        assert row["seeds"] == (1 if of_its_own_fit else 3)
        if row["model"] == LEAKING:
            assert row["coverage"] is row["novelty"] is row["popularity"] is row["users_reached"] is None
        else:
            assert 0 < row["coverage"] <= 1
            assert 0 < row["users_reached"] <= 1
    assert metadata["left out"] == "notebook_als, weights_of_all: measured on 1 of 3 seeds"
    assert metadata["Held-out interactions"] == tables["held_out"].num_rows == 3 * N_USERS
    assert metadata["MAP@10 (unseen)"] == pytest.approx(tables["models"]["map"][0].as_py(), rel=1e-3)


def test_the_model_is_better_than_popularity_where_tastes_differ(shared_result, shared_warehouse):
    rows = {row["model"]: row for row in shared_warehouse.read_table("evaluation", "models").to_pylist()}

    # Half of the popular items are of the other parity.
    assert rows["tuned ALS"]["map"] > rows["popularity"]["map"]
    assert rows["tuned ALS"]["difference_to_tuned_low"] == rows["tuned ALS"]["difference_to_tuned_high"] == 0
    assert metadata_of(shared_result, "evaluation")["verdict"].startswith("the tuned model (")


def test_no_interaction_of_the_search_is_among_them(shared_result, shared_warehouse):
    split = shared_warehouse.read_table("leave_one_out_split")
    held_out = shared_warehouse.read_table("evaluation", "held_out")

    assert not interactions_in(split) & interactions_in(held_out)
    checks = {check.check_name: check for check in shared_result.get_asset_check_evaluations()}
    assert checks[CHECK].passed


def test_segments_and_picture_are_shown(shared_result, shared_warehouse):
    segments = shared_warehouse.read_table("evaluation", "segments").to_pylist()
    for kind in ("user", "item"):
        of_tuned = [row for row in segments if row["kind"] == kind and row["model"] == "tuned ALS"]
        assert sum(row["held_out_interactions"] for row in of_tuned) == 3 * N_USERS
    assert "data:image/png;base64," in metadata_of(shared_result, "evaluation")["picture of models"]


def interactions_in(table):
    return set(zip(table["user_index"].to_pylist(), table["item_index"].to_pylist(), strict=True))


# --- Called by itself ----------------------------------------------------------------------------

TRIAL = Hyperparameters(factors=4, regularization=0.1, alpha=10.0, iterations=4, bm25_K1=100.0, bm25_B=0.8)
SHOP = interactions_of(shop_events())
# User u touches the items u to u + 5, one after the other.
CLOCK = interactions_of(
    [(user, item, "view", 1000 * item + user) for user in range(30) for item in range(user, user + 6)]
)


def evaluated(interactions, split, baselines=None, **config):
    """What the asset makes of a search that chose TRIAL."""
    baselines = baselines or baselines_of(split)
    result = TrialResult(TRIAL, Scores(0.5, 0.1, 0.5, 0.5, 0.5, 0.5), 1.0, ranks=np.array([1], np.uint8))
    stored = {"seed": 42, "solver": "implicit", "strengths": {"default": {}}, "blend": None}
    with build_asset_context() as context:
        return evaluation(
            context,
            EvaluationConfig(**config),
            feedback=Feedback(path="feedback.csv"),
            warehouse=Warehouse(path="memory://evaluated"),
            bm25_matrix={name: ds.dataset(table) for name, table in matrix_of(interactions).items()},
            leave_one_out_split=split,
            baselines=baselines["baselines"],
            grid_search_results=with_metadata(results_table([result], [Interval(0.0, 0.0)], 0), stored),
        )


def split_at_random(interactions):
    return split_of(interactions, leave_one_out(interactions.pattern, seed=42, min_interactions=3))


def split_at_the_last(interactions):
    positions = leave_one_out(
        interactions.pattern,
        seed=42,
        min_interactions=3,
        method=HoldOutMethod.last,
        timestamps=interactions.timestamps[1],
    )
    return split_of(interactions, positions, strategy="last")


def figures(result, models):
    """The rows of the models, but for the seconds."""
    rows = result.value["models"].drop_columns("seconds").to_pylist()
    return {row.pop("model"): row for row in rows if row["model"] in models}


def test_the_same_run_gives_the_same_figures():
    first, second = (evaluated(SHOP, split_at_random(SHOP), seeds=1) for _ in range(2))

    # But for the seconds.
    assert figures(first, MODELS) == figures(second, MODELS)
    assert all(first.value[name].equals(second.value[name]) for name in ("segments", "held_out"))


def test_an_interaction_that_was_scored_by_the_search_is_caught(tmp_path):
    """Evaluated on the very interactions that chose the model."""
    split = split_at_random(SHOP)
    pa_csv.write_csv(split.select(["UserID", "ProductCode"]), tmp_path / "leak.csv")
    leaking = evaluated(SHOP, split, strategy="file", file=str(tmp_path / "leak.csv"), seeds=1)
    check = nothing_evaluated_was_scored_by_the_search(evaluation=leaking.value, leave_one_out_split=split)

    assert not check.passed
    assert check.metadata["interactions_in_both"].value == 30


def test_last_takes_the_interaction_before_that_of_the_search():
    split = split_at_the_last(CLOCK)
    result = evaluated(CLOCK, split)

    assert split["ProductCode"].to_pylist() == [user + 5 for user in range(30)]
    assert result.value["held_out"]["ProductCode"].to_pylist() == [user + 4 for user in range(30)] * 3
    assert "the latest interaction but that of the search" in result.metadata["settings"].md_str


def with_louder(interactions, positions):
    strengths = interactions.strengths.copy()
    strengths[positions] *= 100
    place = interactions.table.schema.get_field_index(STRENGTH)
    return replace(interactions, table=interactions.table.set_column(place, STRENGTH, pa.array(strengths)))


def test_and_training_knows_neither():
    """To change the strengths of what came later changes no figure."""
    split = split_at_the_last(CLOCK)
    before = evaluated(CLOCK, split, seeds=1)
    later = CLOCK.positions_in(before.value["held_out"]), CLOCK.positions_in(split)
    after = evaluated(with_louder(CLOCK, np.concatenate(later)), split, seeds=1)
    earlier = evaluated(with_louder(CLOCK, later[1] - 2), split, seeds=1)

    assert figures(before, MODELS[:-1]) == figures(after, MODELS[:-1])
    assert figures(before, MODELS[:-1]) != figures(earlier, MODELS[:-1])


def test_weights_are_those_of_training_interactions_alone():
    """What is held out shapes no weight: to change its strength changes nothing."""
    split = split_at_random(SHOP)
    before = evaluated(SHOP, split, seeds=1)
    after = evaluated(with_louder(SHOP, SHOP.positions_in(before.value["held_out"])), split, seeds=1)

    assert figures(before, MODELS[:-1]) == figures(after, MODELS[:-1])
    assert figures(before, MODELS[-1:]) != figures(after, MODELS[-1:])


def test_each_repetition_holds_out_interactions_of_its_own():
    held_out = evaluated(SHOP, split_at_random(SHOP), seeds=2).value["held_out"]
    first, second = (interactions_in(held_out.slice(begin, 30)) for begin in (0, 30))

    assert held_out["split"].to_pylist() == [0] * 30 + [1] * 30
    assert len(first) == len(second) == 30
    assert first != second


@pytest.mark.parametrize(
    ("interactions", "split", "config", "expected"),
    [
        pytest.param(
            SHOP,
            split_at_random(SHOP),
            {},
            EvaluationProtocol.random,
            id="the same as the search",
        ),
        pytest.param(CLOCK, split_at_the_last(CLOCK), {}, EvaluationProtocol.last, id="the last, too"),
        pytest.param(
            SHOP,
            given_split(SHOP, [("u0", 0), ("stranger", 4), ("u1", 9999)]),
            {},
            EvaluationProtocol.random,
            id="random where the search was scored on a file",
        ),
        pytest.param(
            CLOCK,
            split_at_the_last(CLOCK),
            {"strategy": "random"},
            EvaluationProtocol.random,
            id="what is asked for",
        ),
    ],
)
def test_the_protocol(interactions, split, config, expected):
    result = evaluated(interactions, split, seeds=1, **config)

    assert stored_metadata(result.value["models"])["strategy"] == expected.value
    told = stored_metadata(result.value["models"])["protocol"]
    assert told.startswith("random leave-one-out") == (expected is EvaluationProtocol.random)
    assert ("no timestamps" in told) == (interactions is SHOP)


@pytest.mark.parametrize(
    ("config", "seeds_of", "left_out"),
    [
        pytest.param(
            {"compare_with": ["item_knn", "graph_filter"]},
            {TUNED: 2, ITEM_KNN: 2, GRAPH_FILTER: 2, POPULARITY: 2},
            "nothing",
            id="what is asked for, and popularity",
        ),
        pytest.param(
            {"compare_with": ["notebook_als", "weights_of_all"]},
            {TUNED: 2, NOTEBOOK: 1, POPULARITY: 2, LEAKING: 1},
            "notebook_als, weights_of_all: measured on 1 of 2 seeds",
            id="fits of their own on the first seed",
        ),
        pytest.param(
            {"compare_with": ["notebook_als"], "seeds_of_fits": 2},
            {TUNED: 2, NOTEBOOK: 2, POPULARITY: 2},
            "nothing",
            id="or on all",
        ),
        pytest.param(
            {"compare_with": ["notebook_als", "item_knn"], "most_interactions_of_fits": 179},
            {TUNED: 2, POPULARITY: 2},
            "item_knn, notebook_als: not measured, for 180 interactions are more than "
            "most_interactions_of_fits 179",
            id="or, on large data, on none",
        ),
        pytest.param(
            {"compare_with": [], "max_users": 12},
            {TUNED: 2, POPULARITY: 2},
            r"nothing is held out of \d+ of 30 users",
            id="some of the users",
        ),
    ],
)
def test_what_is_compared_is_configured_and_what_is_left_out_is_said(config, seeds_of, left_out):
    assert CLOCK.pattern.n_interactions == 180
    result = evaluated(CLOCK, split_at_random(CLOCK), seeds=2, **config)
    rows = result.value["models"].to_pylist()

    assert {row["model"]: row["seeds"] for row in rows} == seeds_of
    assert re.fullmatch(left_out, result.metadata["left out"])


def test_what_was_not_tuned_is_not_measured_and_the_reason_is_passed_on():
    split = split_at_random(CLOCK)
    baselines = baselines_of(split, BASELINES[:1], why_not={Family.ease: "35 items are more than 5"})
    result = evaluated(CLOCK, split, baselines, compare_with=["item_knn", "graph_filter", "ease"], seeds=1)

    assert result.value["models"]["model"].to_pylist() == [TUNED, ITEM_KNN, POPULARITY]
    assert result.metadata["left out"] == (
        "graph_filter: it is not among the families of baselines; ease: 35 items are more than 5"
    )


def test_a_baseline_is_measured_by_the_strengths_that_it_was_tuned_by():
    """Where odd items count for nothing, nobody is recommended one."""
    events = [(f"u{user}", item, "odd" if item % 2 else "even") for user in range(30) for item in range(8)]
    shop = interactions_of(events, {"odd": 1.0, "even": 1.0})
    split = split_at_random(shop)
    by_even = Baseline(Family.item_knn, "evens", "presence", neighbours=20, shrinkage=10.0)
    both, alone = (
        evaluated(
            shop,
            split,
            baselines_of(split, [each], strengths={"evens": {"even": 1.0}}),
            compare_with=["item_knn"],
            seeds=1,
        ).value["models"]
        for each in (by_even._replace(strengths="default"), by_even)
    )

    coverage = [table["coverage"].to_pylist()[1] for table in (both, alone)]
    assert coverage == [1.0, 0.5]


@pytest.mark.parametrize(
    ("names", "refused"), [(["notebook_als"], False), ([], False), (["item_knn", "svd"], True)]
)
def test_a_comparison_that_there_is_not_is_refused_before_the_run(names, refused):
    config = {"ops": {"evaluation": {"config": {"compare_with": names}}}}
    job = defs.resolve_job_def("retrain")
    if not refused:
        validate_run_config(job, config)
        return
    with pytest.raises(DagsterInvalidConfigError, match="not in enum type Comparison got svd"):
        validate_run_config(job, config)


def test_a_feed_with_nothing_left_to_hold_out_says_so():
    small = interactions_of([(user, item, "view") for user in range(8) for item in range(user, user + 3)])

    with pytest.raises(Failure) as caught:
        evaluated(small, split_at_random(small), min_interactions=4)
    assert caught.value.description.startswith(
        "evaluation: beside what the search has held out no user has 4 interactions"
    )


def test_a_file_is_needed_for_its_strategy():
    with pytest.raises(Failure) as caught:
        evaluated(SHOP, split_at_random(SHOP), strategy="file")
    assert "needs the path of a `file`" in caught.value.description


def test_users_and_items_of_a_file_that_the_feedback_does_not_have_are_told(tmp_path):
    user, item = SHOP.users[0].as_py(), SHOP.items[0].as_py()
    file = tmp_path / "test.csv"
    lines = [f"{user},{item}", f"stranger,{item}", f"other stranger,{item}", f"{user},999"]
    file.write_text("UserID,ProductCode\n" + "\n".join(lines) + "\n")
    metadata = evaluated(SHOP, split_at_random(SHOP), strategy="file", file=str(file), seeds=1).metadata

    unknown = [metadata[f"Held-out rows of unknown {kind}"] for kind in ("users", "items")]
    assert unknown == [2, 1]
