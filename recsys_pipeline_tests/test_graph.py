"""The whole graph in a temporary folder: what it makes, what it says, and how it fails."""

import json

import pyarrow.parquet as pq
import pytest
from dagster import AssetSelection, DagsterInvalidConfigError

from recsys_pipeline import load_model
from recsys_pipeline.definitions import defs
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.worlds import (
    N_ITEMS,
    N_USERS,
    SMALL_GRID,
    failure_of,
    item_code,
    metadata_of,
    run_graph,
)

SPINE = [
    "raw_feedback",
    "feedback_strengths",
    "bm25_matrix",
    "leave_one_out_split",
    "grid_search_results",
    "best_model",
]
COLUMNS = [
    "factors",
    "regularization",
    "alpha",
    "iterations",
    "bm25_K1",
    "bm25_B",
    "MAP@10",
    "MAP@10 standard error",
    "NDCG@10",
    "HitRate@10",
    "MAP@10 (notebook)",
    "fit_seconds",
    "iterations_done",
    "nu",
    "unobserved_weight",
    "confidence",
    "weighting",
    "strengths",
    "starts",
    "Recall@10",
    "difference low",
    "difference high",
    "distinguishable",
    "chosen",
    "failure",
]


@pytest.mark.usefixtures("result")
def test_makes_every_artefact(warehouse):
    root = warehouse.root
    assert sorted(path.name for path in root.iterdir()) == sorted(
        [
            *(f"{name}.parquet" for name in ("raw_feedback", "rejected_feedback", "feedback_strengths")),
            *(f"{name}.parquet" for name in ("leave_one_out_split", "grid_search_results", "trial_ranks")),
            "bm25_matrix",
            "best_model",
            "evaluation",
            "search_journal",
        ]
    )
    pairs = pq.read_table(root / "bm25_matrix" / "pairs.parquet")
    users = pq.read_table(root / "bm25_matrix" / "users.parquet")
    items = pq.read_table(root / "bm25_matrix" / "items.parquet")
    assert pairs.column_names == [
        *("user_index", "item_index", "strength", "weight", "target", "seen"),
        *(f"count_{event}" for event in ("view", "query_search", "click", "compare")),
    ]
    assert users["UserID"].to_pylist() == list(range(N_USERS))
    assert items["ProductCode"].to_pylist() == [item_code(item) for item in range(N_ITEMS)]


@pytest.mark.usefixtures("result")
def test_the_split_names_pairs_by_id_and_index(warehouse):
    split = warehouse.read_table("leave_one_out_split")
    items = warehouse.read_table("bm25_matrix", "items")["ProductCode"].to_pylist()

    assert split.column_names == ["UserID", "ProductCode", "user_index", "item_index", "split"]
    assert split["UserID"].to_pylist() == list(range(N_USERS))
    assert split["ProductCode"].to_pylist() == [items[index] for index in split["item_index"].to_pylist()]


@pytest.mark.usefixtures("result")
def test_the_results_are_a_row_a_trial_best_first(warehouse):
    results = warehouse.read_table("grid_search_results")

    assert results.column_names == COLUMNS
    assert results.num_rows == 4
    scores = results["MAP@10"].to_pylist()
    assert scores == sorted(scores, reverse=True)


@pytest.mark.usefixtures("result")
def test_the_model_is_the_best_trial_and_recommends_to_everyones_taste(warehouse):
    model = load_model(warehouse.root)
    best = warehouse.read_table("grid_search_results").to_pylist()[0]

    assert model.manifest["hyperparameters"]["iterations"] == best["iterations"]
    assert model.manifest["metrics"]["MAP@10"] == best["MAP@10"]
    assert model.manifest["seed"] == 42
    assert model.manifest["inputs"]["raw_feedback"] == warehouse.fingerprint("raw_feedback")
    for user in range(N_USERS):
        assert {int(code) % 2 for code in model.recommend(user, n=5)["item"]} == {user % 2}


def test_every_materialization_says_what_was_made(result):
    for asset in SPINE:
        assert "path" in metadata_of(result, asset), asset
    for asset in SPINE[:-1]:
        assert {"dagster/row_count", "dagster/column_schema"} <= set(metadata_of(result, asset)), asset
    for asset in ("bm25_matrix", "grid_search_results", "best_model"):
        assert (metadata_of(result, asset)["users"], metadata_of(result, asset)["items"]) == (
            N_USERS,
            N_ITEMS,
        ), asset
    for asset in ("grid_search_results", "best_model"):
        assert 0 < metadata_of(result, asset)["MAP@10"] < 1, asset
    assert 0 < metadata_of(result, "best_model")["MAP@10 train"] <= 1


def test_every_claim_is_checked_and_holds(result):
    checks = result.get_asset_check_evaluations()

    assert {check.asset_key.path[-1] for check in checks} == {*SPINE[2:], "evaluation"}
    assert all(check.passed for check in checks)


def test_every_asset_has_a_description_a_kind_and_the_one_group():
    for node in defs.resolve_asset_graph().asset_nodes:
        assert node.description, node.key
        assert node.kinds, node.key
        assert node.group_name == "recommender", node.key


def test_two_runs_give_identical_tables_and_factors(parity_csv, tmp_path):
    first, second = (Warehouse(path=str(tmp_path / name)) for name in ("first", "second"))
    for warehouse in (first, second):
        assert run_graph(parity_csv, warehouse).success

    for names in [("raw_feedback",), ("feedback_strengths",), ("leave_one_out_split",)]:
        assert first.fingerprint(*names) == second.fingerprint(*names)
    for name in ("pairs", "users", "items"):
        assert first.fingerprint("bm25_matrix", name) == second.fingerprint("bm25_matrix", name)
    results = [w.read_table("grid_search_results").drop_columns("fit_seconds") for w in (first, second)]
    assert results[0].equals(results[1])
    models = [load_model(w.root).model for w in (first, second)]
    assert (models[0].user_factors == models[1].user_factors).all()
    assert (models[0].item_factors == models[1].item_factors).all()


def test_a_second_run_keeps_the_first_version(parity_csv, warehouse):
    assert run_graph(parity_csv, warehouse).success
    first = load_model(warehouse.root).manifest["version"]
    assert run_graph(parity_csv, warehouse).success

    assert load_model(warehouse.root).manifest["version"] != first
    assert load_model(warehouse.root / "best_model" / first)


def test_the_last_pair_can_be_held_out(tmp_path, warehouse):
    path = tmp_path / "timed.csv"
    events = [
        f"{user},{item},view,{1000 * item + user}" for user in range(20) for item in range(user, user + 5)
    ]
    path.write_text("UserID,ProductCode,Event,Timestamp\n" + "\n".join(events) + "\n")
    last = {"leave_one_out_split": {"config": {"strategy": "last"}}}

    assert run_graph(path, warehouse, ops=last).success
    assert warehouse.read_table("leave_one_out_split")["ProductCode"].to_pylist() == [
        u + 4 for u in range(20)
    ]


# --- Failures ---


def test_bad_feedback_fails_with_one_clear_message_and_leaves_everything_as_it_was(
    parity_csv, warehouse, tmp_path
):
    assert run_graph(parity_csv, warehouse).success
    before = load_model(warehouse.root).manifest["version"]
    broken = tmp_path / "broken.csv"
    broken.write_text("UserID,Event\n1,view\n")

    failed = run_graph(broken, warehouse)
    assert failure_of(failed).startswith(f"{broken}: no column 'ProductCode'")
    assert load_model(warehouse.root).manifest["version"] == before


def test_so_many_users_at_most_are_held_out(parity_csv, warehouse):
    ops = {"leave_one_out_split": {"config": {"max_users": 25}}}
    result = run_graph(parity_csv, warehouse, ops=ops)

    assert result.success
    assert warehouse.read_table("leave_one_out_split").num_rows == 25
    assert metadata_of(result, "leave_one_out_split")["users_whole_in_training"] == N_USERS - 25
    assert metadata_of(result, "grid_search_results")["held_out_pairs"] == 25


def test_last_without_timestamps_says_so(parity_csv, warehouse):
    last = {"leave_one_out_split": {"config": {"strategy": "last"}}}

    assert "needs timestamps" in failure_of(run_graph(parity_csv, warehouse, ops=last))


def test_a_feed_in_which_nobody_has_enough_pairs_says_so(tmp_path, warehouse):
    path = tmp_path / "thin.csv"
    path.write_text("UserID,ProductCode,Event\n" + "".join(f"{u},{u % 3},view\n" for u in range(9)))

    assert "no user has 3 pairs or more (the most is 1)" in failure_of(run_graph(path, warehouse))


def test_dislikes_are_reported_and_stop_the_search(tmp_path, warehouse):
    path = tmp_path / "crawler.csv"
    rows = [f"7,{item},view" for item in range(12)] + [
        f"{u},{i},view" for u in range(6) for i in range(u, u + 4)
    ]
    path.write_text("UserID,ProductCode,Event\n" + "\n".join(rows) + "\n")

    result = run_graph(path, warehouse)
    assert metadata_of(result, "bm25_matrix")["weights_at_or_below_zero"] == 12
    assert "1 users touched all 12 items" in failure_of(result)
    assert failure_of(result).count(": 7.") == 1
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "every_weight_is_positive"]
    assert not check.passed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"factors": []}, "at least 1 item", id="empty list"),
        pytest.param({"factors": [0]}, "greater than or equal to 1", id="no factors"),
        pytest.param({"alpha": [-1.0]}, "greater than 0", id="negative"),
        pytest.param({"regularization": [-0.1]}, "greater than or equal to 0", id="negative penalty"),
        pytest.param({"bm25_B": [1.2]}, "less than or equal to 1", id="share above 1"),
        pytest.param({"seed": 2**32}, "less than 4294967296", id="seed too large for implicit"),
    ],
)
def test_a_grid_that_makes_no_sense_fails_before_the_first_fit(parity_csv, warehouse, change, message):
    ops = {"grid_search_results": {"config": {**SMALL_GRID, **change}}}
    result = run_graph(parity_csv, warehouse, ops=ops)

    (event,) = [event for event in result.all_events if event.is_step_failure]
    assert message in json.dumps(event.step_failure_data.error.to_string())
    assert not warehouse.table_path("grid_search_results").exists()


def test_a_typo_in_the_configuration_fails_before_anything_runs(parity_csv, warehouse):
    with pytest.raises(DagsterInvalidConfigError, match='unexpected config entry "factor"'):
        run_graph(parity_csv, warehouse, ops={"grid_search_results": {"config": {"factor": [4]}}})
    assert not warehouse.root.exists()


def test_a_trial_that_fails_is_a_row_with_its_reason_and_the_search_goes_on(parity_csv, warehouse):
    ops = {"grid_search_results": {"config": {**SMALL_GRID, "alpha": [10.0, 1e38]}}}
    result = run_graph(parity_csv, warehouse, ops=ops)

    assert result.success
    assert metadata_of(result, "grid_search_results")["failed_trials"] == 4
    rows = warehouse.read_table("grid_search_results").to_pylist()
    assert [row["alpha"] for row in rows] == [10.0] * 4 + [1e38] * 4
    assert all("NaN" in row["failure"] and row["MAP@10"] is None for row in rows[4:])
    assert all(row["failure"] is None for row in rows[:4])


def test_a_search_in_which_all_fails_fails(parity_csv, warehouse):
    ops = {"grid_search_results": {"config": {**SMALL_GRID, "alpha": [1e38]}}}

    assert "all 4 trials failed; the first: " in failure_of(run_graph(parity_csv, warehouse, ops=ops))
    assert not warehouse.table_path("grid_search_results").exists()


@pytest.mark.parametrize("strategy", ["halving", "random"])
@pytest.mark.parametrize("solver", ["implicit", "batched"])
def test_every_strategy_and_solver_ends_in_a_model(parity_csv, warehouse, strategy, solver):
    search = {**SMALL_GRID, "iterations": [3, 12], "strategy": strategy, "n_trials": 5, "solver": solver}
    if solver == "batched":
        search |= {"nu": [0.0, 0.5], "unobserved_weight": [0.1, 1.0], "confidence": ["1 + alpha * w"]}
    if strategy == "halving":
        search["starts"] = [2]
    result = run_graph(parity_csv, warehouse, ops={"grid_search_results": {"config": search}})

    assert result.success
    rows = warehouse.read_table("grid_search_results").to_pylist()
    assert rows[0]["iterations_done"] == rows[0]["iterations"]
    if strategy == "halving":
        assert any(row["iterations_done"] < row["iterations"] for row in rows)
    else:
        assert len(rows) == 5
    manifest = load_model(warehouse.root).manifest
    assert manifest["solver"] == solver
    assert manifest["hyperparameters"]["nu"] == rows[0]["nu"]
    model = load_model(warehouse.root)
    assert model.model.user_factors.shape[1] == rows[0]["factors"] * rows[0]["starts"]
    assert len(model.similar_items(model.items[0], 3)) == len(model.recommend(model.users[0], 3)) == 3


def test_a_search_over_the_same_data_takes_up_what_is_finished(parity_csv, warehouse):
    assert run_graph(parity_csv, warehouse).success
    before = warehouse.read_table("grid_search_results")
    assert run_graph(parity_csv, warehouse).success

    # Even the seconds are those of the first search.
    assert warehouse.read_table("grid_search_results").equals(before)


def test_implicit_is_not_asked_for_what_it_cannot_do(parity_csv, warehouse):
    ops = {"grid_search_results": {"config": {**SMALL_GRID, "nu": [0.5]}}}

    assert "Choose solver `batched`" in failure_of(run_graph(parity_csv, warehouse, ops=ops))


def test_a_split_of_another_matrix_is_noticed(parity_csv, warehouse, tmp_path):
    assert run_graph(parity_csv, warehouse).success
    more = tmp_path / "more.csv"
    more.write_text(parity_csv.read_text() + "-1,00000,view\n-1,00002,view\n-1,00004,view\n")
    upstream = AssetSelection.assets("raw_feedback", "feedback_strengths", "bm25_matrix")
    search_alone = AssetSelection.assets("grid_search_results")

    assert run_graph(more, warehouse, selection=upstream).success
    result = run_graph(more, warehouse, selection=search_alone)
    assert "leave_one_out_split was made from another bm25_matrix" in failure_of(result)
