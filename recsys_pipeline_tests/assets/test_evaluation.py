"""The evaluation: pairs that the search never scored, training that never saw them."""

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pytest

from recsys_pipeline.assets import evaluation as module
from recsys_pipeline.assets.pairs import Pairs
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.tables import with_notes
from recsys_pipeline_tests.worlds import N_USERS, failure_of, metadata_of, run_graph

MODELS = [
    "tuned ALS",
    "item-kNN, BM25",
    "item-kNN, cosine",
    "notebook's ALS",
    "popularity",
    "tuned ALS, weights of all pairs",
]


def test_every_model_is_measured_on_the_same_pairs(result, warehouse):
    tables = warehouse.read_tables("evaluation")

    assert tables["models"]["model"].to_pylist() == MODELS
    for row in tables["models"].to_pylist():
        assert 0 <= row["MAP low"] <= row["MAP"] <= row["MAP high"] <= 1
        assert row["HitRate"] == row["Recall"]
        assert 0 < row["coverage"] <= 1
        assert 0 < row["users_reached"] <= 1
    assert metadata_of(result, "evaluation")["held_out_pairs"] == tables["held_out"].num_rows == 3 * N_USERS
    assert metadata_of(result, "evaluation")["MAP@10"] == pytest.approx(
        tables["models"]["MAP"][0].as_py(), rel=1e-5
    )


def test_the_model_is_better_than_popularity_where_tastes_differ(result, warehouse):
    rows = {row["model"]: row for row in warehouse.read_table("evaluation", "models").to_pylist()}

    # Half of the popular items are of the other parity.
    assert rows["tuned ALS"]["MAP"] > rows["popularity"]["MAP"]
    assert rows["tuned ALS"]["difference to tuned low"] == rows["tuned ALS"]["difference to tuned high"] == 0
    assert metadata_of(result, "evaluation")["verdict"].startswith("the tuned model (")


def test_no_pair_of_the_search_is_among_them(result, warehouse):
    split, held_out = (
        warehouse.read_table("leave_one_out_split"),
        warehouse.read_table("evaluation", "held_out"),
    )
    pairs_of = [
        set(zip(t["user_index"].to_pylist(), t["item_index"].to_pylist(), strict=True))
        for t in (split, held_out)
    ]

    assert not pairs_of[0] & pairs_of[1]
    (check,) = [
        c
        for c in result.get_asset_check_evaluations()
        if c.check_name == "no_evaluated_pair_was_scored_by_the_search"
    ]
    assert check.passed


def test_a_pair_that_was_scored_by_the_search_is_caught(parity_csv, warehouse, tmp_path):
    """Evaluated on the very pairs that chose the model."""
    assert run_graph(parity_csv, warehouse).success
    split = warehouse.read_table("leave_one_out_split").select(["UserID", "ProductCode"])
    pa_csv.write_csv(split, tmp_path / "leak.csv")
    ops = {"evaluation": {"config": {"strategy": "file", "file": str(tmp_path / "leak.csv"), "seeds": 1}}}
    result = run_graph(parity_csv, warehouse, ops=ops, evaluate=True)

    failed = {check.check_name: check for check in result.get_asset_check_evaluations() if not check.passed}
    assert failed["no_evaluated_pair_was_scored_by_the_search"].metadata["pairs_in_both"].value == N_USERS


@pytest.mark.usefixtures("result")
def test_the_same_run_gives_the_same_figures(parity_csv, warehouse):
    before = warehouse.read_tables("evaluation")
    assert run_graph(parity_csv, warehouse, evaluate=True).success

    again = warehouse.read_tables("evaluation")
    assert all(again[name].equals(before[name]) for name in before)


def test_segments_and_picture_are_shown(result, warehouse):
    segments = warehouse.read_table("evaluation", "segments").to_pylist()
    for kind in ("user", "item"):
        of_tuned = [row for row in segments if row["kind"] == kind and row["model"] == "tuned ALS"]
        assert sum(row["pairs"] for row in of_tuned) == 3 * N_USERS
    assert "data:image/png;base64," in metadata_of(result, "evaluation")["picture"]
    assert "random leave-one-out" in metadata_of(result, "evaluation")["protocol"]
    assert "no timestamps" in metadata_of(result, "evaluation")["protocol"]
    assert "to" in metadata_of(result, "evaluation")["leak_of_weights_interval"]


@pytest.fixture
def timed_csv(tmp_path):
    """User u touches 6 items one after the other, the last of them item u + 5."""
    path = tmp_path / "timed.csv"
    events = [
        f"{user},{item},view,{1000 * item + user}" for user in range(30) for item in range(user, user + 6)
    ]
    path.write_text("UserID,ProductCode,Event,Timestamp\n" + "\n".join(events) + "\n")
    return path


LAST = {"leave_one_out_split": {"config": {"strategy": "last"}}}


def test_last_takes_the_pair_before_that_of_the_search(timed_csv, warehouse):
    result = run_graph(timed_csv, warehouse, ops=LAST, evaluate=True)
    assert result.success

    split, held_out = (
        warehouse.read_table("leave_one_out_split"),
        warehouse.read_table("evaluation", "held_out"),
    )
    assert split["ProductCode"].to_pylist() == [user + 5 for user in range(30)]
    assert held_out["ProductCode"].to_pylist() == [user + 4 for user in range(30)] * 3
    assert "the latest pair but that of the search" in metadata_of(result, "evaluation")["protocol"]


def test_and_training_knows_neither(timed_csv, warehouse):
    assert run_graph(timed_csv, warehouse, ops=LAST).success
    pairs = Pairs.from_tables(warehouse.read_tables("bm25_matrix"))
    split = warehouse.read_table("leave_one_out_split")
    winner = module.Winner.of(warehouse.read_table("grid_search_results"))
    _, repetitions = module._repetitions(pairs, winner, module.EvaluationConfig(), Feedback(), split)

    for repetition in repetitions:
        left = repetition.holdout.left["default"] > 0
        of_users = [pairs.pattern.indices[left & (pairs.pattern.user_of_pair == user)] for user in range(30)]
        assert [items.tolist() for items in of_users] == [[u, u + 1, u + 2, u + 3] for u in range(30)]


def test_weights_are_those_of_training_pairs_alone(parity_csv, warehouse):
    """What is held out shapes no weight: to change its strength changes nothing."""
    assert run_graph(parity_csv, warehouse).success
    pairs = Pairs.from_tables(warehouse.read_tables("bm25_matrix"))
    split = warehouse.read_table("leave_one_out_split")
    winner = module.Winner.of(warehouse.read_table("grid_search_results"))
    config = module.EvaluationConfig(seeds=1)

    def scores(strengths):
        changed = module.Pairs(**{**pairs.__dict__, "strengths": strengths})
        _, (repetition,) = module._repetitions(changed, winner, config, Feedback(), split)
        scorers = dict(module._Models(changed, winner, config).scorers(repetition))
        return {name: scorer(np.arange(N_USERS, dtype=np.int32)) for name, scorer in scorers.items()}

    _, (repetition,) = module._repetitions(pairs, winner, config, Feedback(), split)
    held_out = pairs.pattern.positions_of(repetition.holdout.users, repetition.holdout.items)
    louder = pairs.strengths.copy()
    louder[held_out] *= 100
    before, after = scores(pairs.strengths), scores(louder)

    for name in MODELS[:-1]:
        assert np.array_equal(before[name], after[name]), name
    assert not np.array_equal(before[MODELS[-1]], after[MODELS[-1]])


def test_a_feed_with_nothing_left_to_hold_out_says_so(tmp_path, warehouse):
    path = tmp_path / "small.csv"
    rows = [f"{user},{item},view" for user in range(8) for item in range(user, user + 3)]
    path.write_text("UserID,ProductCode,Event\n" + "\n".join(rows) + "\n")
    ops = {"evaluation": {"config": {"min_interactions": 4}}}

    assert "beside the pairs of the search no user has 4 pairs" in failure_of(
        run_graph(path, warehouse, ops=ops, evaluate=True)
    )


def test_a_file_is_needed_for_its_strategy(parity_csv, warehouse):
    ops = {"evaluation": {"config": {"strategy": "file"}}}

    assert "needs the path of a `file`" in failure_of(
        run_graph(parity_csv, warehouse, ops=ops, evaluate=True)
    )


def test_same_is_random_where_the_search_was_scored_on_a_file():
    split = with_notes(pa.table({}), {"strategy": "file"})

    assert module._protocol(module.EvaluationConfig(), split) is module.Protocol.random
