"""The whole graph in a temporary folder: what it makes, what it says, and how it fails."""

import shutil

import pyarrow.parquet as pq
import pytest
from dagster import AssetKey, AssetSelection, DagsterInvalidConfigError

from recsys_pipeline import load_model
from recsys_pipeline.configuration import InvalidConfigurationError
from recsys_pipeline.core.hyperparameters import Hyperparameters
from recsys_pipeline.core.lineage import Lineage
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.definitions import defs
from recsys_pipeline.reporting.metadata import in_order
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.storage.bucket import new_bucket
from recsys_pipeline_tests.worlds import (
    N_ITEMS,
    N_USERS,
    SMALL_GRID,
    TUNED_ALONE,
    alone,
    failed_checks_of,
    failure_of,
    item_code,
    made_model,
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
    "nu",
    "unobserved_weight",
    "confidence",
    "weighting",
    "strengths",
    "ensemble_size",
    "half_life_days",
    "MAP@10",
    "map_at_10_standard_error",
    "ndcg_at_10",
    "hit_rate_at_10",
    "recall_at_10",
    "notebook_map_at_10",
    "difference_low",
    "difference_high",
    "distinguishable",
    "chosen",
    "incumbent",
    "iterations_done",
    "fit_seconds",
    "failure",
]


def searching(**config):
    """A small grid with some of its configuration changed."""
    return {"grid_search_results": {"config": {**SMALL_GRID, **config}}}


def splitting(**config):
    return {"leave_one_out_split": {"config": config}}


# --- What it makes ---


def test_makes_every_artefact(shared_warehouse):
    root = shared_warehouse.root
    assert sorted(path.name for path in root.iterdir() if not path.name.startswith(".")) == sorted(
        [
            *(f"{name}.parquet" for name in ("raw_feedback", "rejected_feedback", "feedback_strengths")),
            *(f"{name}.parquet" for name in ("leave_one_out_split", "baselines", "baseline_ranks")),
            *(f"{name}.parquet" for name in ("grid_search_results", "trial_ranks")),
            *(f"{name}.parquet" for name in ("catalogue", "recommendations", "similar_items")),
            *("popular_items.parquet", "bm25_matrix", "best_model", "evaluation", "model_card"),
            *("releases", "search_journal", "pictures"),
        ]
    )
    interactions = pq.read_table(root / "bm25_matrix" / "pairs.parquet")
    users = pq.read_table(root / "bm25_matrix" / "users.parquet")
    items = pq.read_table(root / "bm25_matrix" / "items.parquet")
    assert interactions.column_names == [
        *("user_index", "item_index", "strength", "weight", "target", "excluded"),
        *(f"count_{event}" for event in ("view", "query_search", "click", "compare")),
    ]
    assert users["UserID"].to_pylist() == list(range(N_USERS))
    assert items["ProductCode"].to_pylist() == [item_code(item) for item in range(N_ITEMS)]


def test_the_split_names_interactions_by_id_and_index(shared_warehouse):
    split = shared_warehouse.read_table("leave_one_out_split")
    items = shared_warehouse.read_table("bm25_matrix", "items")["ProductCode"].to_pylist()

    assert split.column_names == ["UserID", "ProductCode", "user_index", "item_index", "split"]
    assert split["UserID"].to_pylist() == list(range(N_USERS))
    assert split["ProductCode"].to_pylist() == [items[index] for index in split["item_index"].to_pylist()]


def test_the_results_are_a_row_a_trial_best_first(shared_warehouse):
    results = shared_warehouse.read_table("grid_search_results")

    assert results.column_names == COLUMNS
    assert results.num_rows == 4
    scores = results["MAP@10"].to_pylist()
    assert scores == sorted(scores, reverse=True)


def test_the_ranks_of_each_trial_give_its_scores(shared_warehouse):
    results = shared_warehouse.read_table("grid_search_results").to_pylist()
    ranks = shared_warehouse.read_table("grid_search_results", "trial_ranks").to_pylist()

    assert len(ranks) == 4
    for row, ranked in zip(results, ranks, strict=True):
        assert len(ranked["ranks"]) == N_USERS
        reciprocal = sum(1 / rank for rank in ranked["ranks"] if rank <= 10)
        assert row["MAP@10"] == pytest.approx(reciprocal / N_USERS)
        assert {name: row[name] for name in SMALL_GRID} == {name: ranked[name] for name in SMALL_GRID}


def test_the_model_is_the_best_trial_and_recommends_to_everyones_taste(shared_warehouse):
    model = load_model(shared_warehouse.root)
    best = shared_warehouse.read_table("grid_search_results").to_pylist()[0]

    assert model.manifest["hyperparameters"]["iterations"] == best["iterations"]
    assert model.manifest["metrics"]["MAP@10"] == best["MAP@10"]
    assert model.manifest["seed"] == 42
    for user in range(N_USERS):
        assert {int(code) % 2 for code in model.recommend(user, n=5)["item"]} == {user % 2}


def ancestors(asset):
    graph = defs.resolve_asset_graph()
    return {key.path[-1] for key in graph.get_ancestor_asset_keys(AssetKey(asset))}


@pytest.mark.parametrize("asset", [*SPINE[1:-1], "baselines", "evaluation"])
def test_every_table_names_the_states_of_all_that_it_was_made_from(shared_warehouse, asset):
    for table in shared_warehouse.read_tables(asset).values():
        lineage = Lineage.of(table)
        assert lineage.ancestors == {name: shared_warehouse.write_id(name) for name in ancestors(asset)}
        assert lineage.write_id == shared_warehouse.write_id(asset)


def test_and_the_model_does_so_in_its_manifest(shared_warehouse):
    assert shared_warehouse.open_model("best_model").lineage.ancestors == {
        name: shared_warehouse.write_id(name) for name in ancestors("best_model")
    }


def test_and_the_release_in_its_own(shared_warehouse):
    assert load_model(shared_warehouse.root).manifest["inputs"] == {
        name: shared_warehouse.write_id(name) for name in ancestors("release")
    }


# --- What it says ---


def test_every_materialization_says_what_was_made(shared_result):
    for asset in SPINE:
        assert "where it is" in metadata_of(shared_result, asset), asset
    for asset in SPINE[:-1]:
        assert {"dagster/row_count", "dagster/column_schema"} <= set(metadata_of(shared_result, asset)), asset
    for asset in ("feedback_strengths", "bm25_matrix", "best_model"):
        metadata = metadata_of(shared_result, asset)
        assert (metadata["Users"], metadata["Items"]) == (N_USERS, N_ITEMS), asset
    for asset in ("grid_search_results", "best_model"):
        assert 0 < metadata_of(shared_result, asset)["MAP@10 (search)"] < 1, asset
    for asset in ("evaluation", "model_card", "release"):
        assert 0 < metadata_of(shared_result, asset)["MAP@10 (unseen)"] < 1, asset


@pytest.mark.parametrize("asset", [each.key.path[-1] for each in defs.assets])
def test_every_materialization_begins_with_the_sentence_that_matters(asset, shared_result):
    """Then come figures, then tables, then what was set and where it is."""
    entries = {
        name: value
        for name, value in metadata_of(shared_result, asset).items()
        if not name.startswith("dagster/")
    }
    names = list(entries)

    assert names[0] == "At a glance"
    assert names == list(in_order(entries))
    figures = [name for name, value in entries.items() if isinstance(value, int | float)]
    assert all(name[0].isupper() for name in figures)
    assert len(figures) <= 9
    # Numbers that people can read.
    assert all(float(f"{entries[name]:.4g}") == entries[name] or entries[name] > 999 for name in figures)
    assert not [name for name in names if "_" in name]


def test_every_claim_is_checked_and_holds(shared_result):
    checks = shared_result.get_asset_check_evaluations()

    elsewhere = {"delivery", "mlflow_run"}
    assert {check.asset_key.path[-1] for check in checks} == {
        asset.key.path[-1] for asset in defs.assets
    } - elsewhere
    assert {check.asset_check_key for check in checks} == defs.resolve_asset_graph().asset_check_keys
    assert all(check.passed for check in checks)


def test_every_asset_has_a_description_a_kind_and_the_one_group():
    for node in defs.resolve_asset_graph().asset_nodes:
        assert node.description, node.key
        assert node.kinds, node.key
        assert node.group_name == "recommender", node.key


# --- Again ---


@pytest.mark.runs
def test_two_runs_give_identical_tables_and_factors(parity_csv, warehouse, shared_warehouse):
    assert run_graph(parity_csv, warehouse).success

    for name in SPINE[:4]:
        assert warehouse.write_id(name) == shared_warehouse.write_id(name)
    both = (warehouse, shared_warehouse)
    results = [each.read_table("grid_search_results").drop_columns("fit_seconds") for each in both]
    assert results[0].equals(results[1])
    models = [made_model(each).model for each in both]
    assert (models[0].user_factors == models[1].user_factors).all()
    assert (models[0].item_factors == models[1].item_factors).all()


@pytest.mark.runs
def test_a_second_run_keeps_the_first_release_and_computes_no_trial_again(parity_csv, own_warehouse):
    first = load_model(own_warehouse.root).manifest["version"]
    before = own_warehouse.read_table("grid_search_results")
    assert run_graph(parity_csv, own_warehouse, ops=TUNED_ALONE, evaluate=True).success

    assert load_model(own_warehouse.root).manifest["version"] != first
    assert load_model(own_warehouse.root / "releases" / first)
    # Even the seconds are those of the first search.
    after = own_warehouse.read_table("grid_search_results")
    assert after.drop_columns("incumbent").equals(before.drop_columns("incumbent"))


@pytest.mark.runs
def test_an_object_store_without_folders_is_as_good_as_a_disk(parity_csv, monkeypatch, shared_warehouse):
    warehouse = Warehouse(path=str(new_bucket(monkeypatch)))
    result = run_graph(parity_csv, warehouse, ops=TUNED_ALONE, evaluate=True)
    assert result.success
    assert failed_checks_of(result) == {}
    assert run_graph(parity_csv, warehouse, ops=TUNED_ALONE, evaluate=True).success

    for name in ("raw_feedback", "bm25_matrix", "leave_one_out_split"):
        assert warehouse.write_id(name) == shared_warehouse.write_id(name)
    in_bucket, on_disk = (load_model(each.root) for each in (warehouse, shared_warehouse))
    assert in_bucket.recommend(7).equals(on_disk.recommend(7))
    assert len({path.name for path in (warehouse.root / "releases").iterdir()}) == 4


def test_the_last_interaction_can_be_held_out(tmp_path, warehouse):
    path = tmp_path / "timed.csv"
    events = [
        f"{user},{item},view,{1000 * item + user}" for user in range(20) for item in range(user, user + 5)
    ]
    path.write_text("UserID,ProductCode,Event,Timestamp\n" + "\n".join(events) + "\n")
    through_split = alone("leave_one_out_split").upstream()

    assert run_graph(path, warehouse, ops=splitting(strategy="last"), selection=through_split).success
    split = warehouse.read_table("leave_one_out_split")
    assert split["ProductCode"].to_pylist() == [user + 4 for user in range(20)]


@pytest.mark.runs
def test_so_many_users_at_most_are_held_out(parity_csv, own_warehouse):
    selection = alone("leave_one_out_split", "baselines", "grid_search_results")
    ops = {**splitting(max_users=25), **searching()}
    result = run_graph(parity_csv, own_warehouse, ops=ops, selection=selection)

    assert result.success
    assert own_warehouse.read_table("leave_one_out_split").num_rows == 25
    assert metadata_of(result, "leave_one_out_split")["Users whole in training"] == N_USERS - 25
    assert metadata_of(result, "leave_one_out_split")["Held-out interactions"] == 25


@pytest.mark.parametrize("strategy", ["halving", "random"])
@pytest.mark.parametrize("solver", ["implicit", "batched"])
@pytest.mark.runs
def test_every_strategy_and_solver_ends_in_a_model(parity_csv, own_warehouse, strategy, solver):
    search = {"iterations": [3, 12], "strategy": strategy, "n_trials": 5, "solver": solver}
    if solver == "batched":
        search |= {"nu": [0.0, 0.5], "unobserved_weight": [0.1, 1.0], "confidence": ["1 + alpha * w"]}
    if strategy == "halving":
        search["ensemble_size"] = [2]
    selection = alone("grid_search_results", "best_model")

    assert run_graph(parity_csv, own_warehouse, ops=searching(**search), selection=selection).success
    rows = own_warehouse.read_table("grid_search_results").to_pylist()
    assert rows[0]["iterations_done"] == rows[0]["iterations"]
    if strategy == "halving":
        assert any(row["iterations_done"] < row["iterations"] for row in rows)
    else:
        assert len(rows) == 5 + 1  # the configuration of the release before
    assert [row["incumbent"] for row in rows].count(True) == 1
    model = made_model(own_warehouse)
    assert model.manifest["solver"] == solver
    assert model.manifest["hyperparameters"]["nu"] == rows[0]["nu"]
    assert model.model.user_factors.shape[1] == rows[0]["factors"] * rows[0]["ensemble_size"]
    assert len(model.similar_items(model.items[0], 3)) == len(model.recommend(model.users[0], 3)) == 3


def about_search(warehouse):
    """What the results say of the search."""
    return stored_metadata(warehouse.read_table("grid_search_results"))


def test_the_first_search_has_nothing_to_keep_and_says_so(shared_warehouse, shared_result):
    assert about_search(shared_warehouse)["incumbent"] == {
        "version": None,
        "hyperparameters": None,
        "why_none": "no model is released yet",
    }
    assert metadata_of(shared_result, "grid_search_results")["decision"] == (
        "no model is released yet; the best trial is chosen"
    )
    assert not any(shared_warehouse.read_table("grid_search_results")["incumbent"].to_pylist())


@pytest.mark.parametrize("switch", ["always", "significant"])
@pytest.mark.runs
def test_the_released_configuration_is_a_trial_and_stays_where_nothing_is_surely_better(
    parity_csv, own_warehouse, switch
):
    released = load_model(own_warehouse.root).manifest
    # Better on these few users, but not by more than chance.
    ops = searching(factors=[5], iterations=[5, 7], switch=switch)
    result = run_graph(parity_csv, own_warehouse, ops=ops)

    assert result.success
    rows = own_warehouse.read_table("grid_search_results").to_pylist()
    assert len(rows) == 4 + 1
    (incumbent,) = [row for row in rows if row["incumbent"]]
    assert {name: incumbent[name] for name in SMALL_GRID} == {
        name: released["hyperparameters"][name] for name in SMALL_GRID
    }
    assert not incumbent["distinguishable"]
    assert not rows[0]["incumbent"]
    chosen = made_model(own_warehouse).manifest["hyperparameters"]
    decision = metadata_of(result, "grid_search_results")["decision"]
    assert about_search(own_warehouse)["decision"] == decision
    if switch == "significant":
        assert chosen == released["hyperparameters"]
        assert incumbent["chosen"]
        assert decision.startswith(f"the configuration of release {released['version']} stays: the best")
    else:
        assert chosen["iterations"] == rows[0]["iterations"]
        assert rows[0]["chosen"]
        assert decision.startswith(f"the configuration of release {released['version']} is replaced: ")


@pytest.mark.runs
def test_a_released_configuration_that_the_data_does_not_allow_does_not_stop_the_search(
    parity_csv, own_warehouse
):
    crawler = "".join(f"7,{item_code(item)},view\n" for item in range(N_ITEMS))
    parity_csv.write_text(parity_csv.read_text() + crawler)
    result = run_graph(parity_csv, own_warehouse, ops=searching(weighting=["none"]))

    assert result.success
    assert "BM25 weights are at or below zero" in about_search(own_warehouse)["incumbent"]["why_none"]
    assert made_model(own_warehouse).manifest["hyperparameters"]["weighting"] == "none"


def test_but_what_is_wrong_with_the_trials_themselves_does(parity_csv, own_warehouse):
    search = alone("grid_search_results")
    ops = searching(strength_mappings={"other": {"purchase": 1.0}})

    failure = failure_of(run_graph(parity_csv, own_warehouse, ops=ops, selection=search))
    assert "the feedback has no purchase" in failure


def searched_around(warehouse):
    """Of the results, where the search started."""
    return about_search(warehouse)["around"]


@pytest.mark.runs
def test_a_search_around_the_published_model_says_where_it_started_and_becomes_a_model(
    parity_csv, own_warehouse
):
    published = load_model(own_warehouse.root).manifest
    search = searching(strategy="around", regularization=[0.01, 0.1], alpha=[10.0, 40.0])
    ops = {**TUNED_ALONE, **search}
    result = run_graph(parity_csv, own_warehouse, ops=ops, evaluate=True)

    assert result.success
    assert failed_checks_of(result) == {}
    assert searched_around(own_warehouse) == {
        "version": published["version"],
        "hyperparameters": published["hyperparameters"],
    }
    assert f"| around | {published['version']} |" in metadata_of(result, "grid_search_results")["settings"]
    rows = own_warehouse.read_table("grid_search_results").to_pylist()
    assert len({row["alpha"] for row in rows}) > 1
    model = load_model(own_warehouse.root)
    assert model.manifest["version"] > published["version"]
    assert model.manifest["metrics"]["MAP@10"] == rows[0]["MAP@10"]
    assert rows[0]["MAP@10"] >= published["metrics"]["MAP@10"]


@pytest.mark.runs
def test_on_the_first_night_it_starts_from_the_first_values(parity_csv, warehouse):
    result = run_graph(parity_csv, warehouse, ops=searching(strategy="around", most_steps=1))

    assert result.success
    assert searched_around(warehouse)["version"] is None
    assert searched_around(warehouse)["hyperparameters"]["iterations"] == 3
    assert (
        "| around | the first values of the lists |" in metadata_of(result, "grid_search_results")["settings"]
    )
    tried = warehouse.read_table("grid_search_results").to_pylist()
    assert {3, 6} <= {row["iterations"] for row in tried}
    assert {(row["factors"], row["alpha"], row["bm25_K1"]) for row in tried} == {(4, 10.0, 100.0)}


@pytest.mark.runs
def test_a_search_around_the_same_model_ends_in_the_same_table(parity_csv, own_warehouse):
    ops = searching(strategy="around", alpha=[10.0, 40.0], reuse_finished_trials=False)
    tables = []
    for _ in range(2):
        assert run_graph(parity_csv, own_warehouse, ops=ops, selection=alone("grid_search_results")).success
        tables.append(own_warehouse.read_table("grid_search_results").drop_columns("fit_seconds"))

    assert tables[0].equals(tables[1])


# --- Presets ---


@pytest.mark.parametrize("solver", ["batched", "implicit"])
def test_a_preset_chooses_what_to_try_and_ends_in_a_model(parity_csv, own_warehouse, solver, capfd):
    search = {
        "preset": "quick",
        "solver": solver,
        "compare_with_implicit": False,
        "strength_mappings": {"equal": {"view": 1, "click": 1}},
    }
    ops = {"grid_search_results": {"config": search}}
    selection = alone("grid_search_results", "best_model")
    result = run_graph(parity_csv, own_warehouse, ops=ops, selection=selection)

    assert result.success
    assert "preset quick: at most 12 fits and the released configuration, in rounds" in capfd.readouterr().err
    metadata = metadata_of(result, "grid_search_results")
    assert "| searched by | preset quick |" in metadata["settings"]
    rows = own_warehouse.read_table("grid_search_results").to_pylist()
    asked = [row for row in rows if not row["incumbent"]]
    fits = {Hyperparameters.from_mapping(row).replace(iterations=0) for row in asked}
    assert 8 < len(fits) <= 12
    assert {(row["strengths"], row["weighting"]) for row in asked} == {
        (strengths, weighting) for strengths in ("default", "equal") for weighting in ("none", "bm25")
    }
    # 40 users are enough for 16 factors.
    assert {row["factors"] for row in asked} == {8, 16}
    assert [row["incumbent"] for row in rows].count(True) == 1
    assert made_model(own_warehouse).manifest["hyperparameters"]["factors"] == rows[0]["factors"]


@pytest.mark.runs
def test_a_search_by_a_preset_goes_on_where_it_was_interrupted(parity_csv, own_warehouse):
    search = {"grid_search_results": {"config": {"preset": "quick", "compare_with_implicit": False}}}
    tables = []
    for n_forgotten in (0, 7):
        for entry in entries_in(own_warehouse)[:n_forgotten]:
            entry.unlink()
        assert run_graph(
            parity_csv, own_warehouse, ops=search, selection=alone("grid_search_results")
        ).success
        tables.append(own_warehouse.read_table("grid_search_results").drop_columns("fit_seconds"))

    assert tables[0].equals(tables[1])


def test_a_grid_that_enters_a_corner_is_warned_of(parity_csv, own_warehouse, capfd):
    ops = searching(
        regularization=[1e4, 0.1], nu=[1.0], unobserved_weight=[20.0], compare_with_implicit=False
    )
    result = run_graph(parity_csv, own_warehouse, ops=ops, selection=alone("grid_search_results"))
    (warned,) = [line for line in capfd.readouterr().err.splitlines() if "WARNING" in line]

    # The released configuration, of which the small weight of the unobserved is told, is one too.
    told = "3 trials are likely to be ruined, such as "
    assert metadata_of(result, "grid_search_results")["likely ruined"].startswith(told)
    assert f"{told}factors 4, regularization 10000" in warned
    assert "most factors vanish" in warned


def test_the_former_name_of_ensemble_size_still_works(parity_csv, own_warehouse):
    ops = searching(starts=[2], regularization=[0.1], iterations=[3])
    assert run_graph(parity_csv, own_warehouse, ops=ops, selection=alone("grid_search_results")).success

    rows = own_warehouse.read_table("grid_search_results").to_pylist()
    assert [row["ensemble_size"] for row in rows if not row["incumbent"]] == [2]


# --- What does not belong together ---


@pytest.fixture
def newer_csv(parity_csv, tmp_path):
    """The feed and one more user."""
    more = "".join(f"100,{item_code(item)},view\n" for item in (0, 2, 4, 6))
    newer = tmp_path / "newer.csv"
    newer.write_text(parity_csv.read_text() + more)
    return newer


@pytest.fixture
def split_again(parity_csv, own_warehouse):
    """Searched on the split of seed 42, then split on seed 43."""
    ops = splitting(seed=43)
    assert run_graph(parity_csv, own_warehouse, ops=ops, selection=alone("leave_one_out_split")).success
    return own_warehouse


@pytest.fixture
def newer_matrix(newer_csv, own_warehouse):
    """All assets of one feed but for the matrix, which is of a newer one."""
    through_matrix = alone("bm25_matrix").upstream()
    assert run_graph(newer_csv, own_warehouse, selection=through_matrix).success
    return own_warehouse


def test_a_stale_split_is_not_evaluated_upon(parity_csv, split_again):
    """It would measure the model on interactions that have chosen it."""
    before = split_again.write_id("evaluation")
    result = run_graph(parity_csv, split_again, selection=alone("evaluation"))

    assert failure_of(result) == (
        "baselines was made from another leave_one_out_split than the one at hand: "
        "materialize baselines again, then what follows it."
    )
    assert split_again.write_id("evaluation") == before


@pytest.mark.runs
def test_the_search_on_the_new_split_mends_it(parity_csv, split_again):
    selection = alone("baselines", "grid_search_results", "evaluation")
    ops = {**searching(), "evaluation": {"config": {"seeds": 1}}}

    assert run_graph(parity_csv, split_again, ops=ops, selection=selection).success


@pytest.mark.parametrize(
    ("asset", "stale"),
    [
        ("grid_search_results", "leave_one_out_split"),
        ("best_model", "grid_search_results"),
        # Both are stale; to make the search again would be refused, for the split is.
        ("evaluation", "leave_one_out_split"),
    ],
)
def test_nothing_is_made_from_a_foreign_matrix(newer_csv, newer_matrix, asset, stale):
    model = newer_matrix.write_id("best_model")
    result = run_graph(newer_csv, newer_matrix, selection=alone(asset))

    assert failure_of(result) == (
        f"{stale} was made from another bm25_matrix than the one at hand: "
        f"materialize {stale} again, then what follows it."
    )
    assert newer_matrix.write_id("best_model") == model


def test_no_claim_holds_of_what_does_not_belong_together(parity_csv, split_again):
    checks = AssetSelection.checks_for_assets("evaluation")
    result = run_graph(parity_csv, split_again, selection=checks)

    assert result.success
    failed = failed_checks_of(result)
    assert set(failed) == {"nothing_evaluated_was_scored_by_the_search"}
    assert failed["nothing_evaluated_was_scored_by_the_search"].description == (
        "evaluation was made from another leave_one_out_split than the one at hand: "
        "materialize evaluation again, then what follows it."
    )


def test_a_newer_feed_is_not_taken_for_what_the_model_was_made_from(newer_csv, own_warehouse):
    inputs = own_warehouse.open_model("best_model").manifest["inputs"]
    assert run_graph(newer_csv, own_warehouse, selection=alone("raw_feedback")).success
    assert own_warehouse.write_id("raw_feedback") != inputs["raw_feedback"]

    assert run_graph(newer_csv, own_warehouse, selection=alone("best_model")).success
    assert own_warehouse.open_model("best_model").manifest["inputs"] == inputs


def test_a_feed_that_is_gone_keeps_no_model_from_being_released(parity_csv, own_warehouse):
    published = load_model(own_warehouse.root).manifest
    shutil.rmtree(own_warehouse.root / ".tables" / "raw_feedback")
    assert not own_warehouse.has("raw_feedback")
    assert run_graph(parity_csv, own_warehouse, selection=alone("best_model", "release")).success

    again = load_model(own_warehouse.root).manifest
    assert again["version"] > published["version"]
    assert again["inputs"] == published["inputs"]


# --- Failures ---


def test_bad_feedback_fails_with_one_clear_message_and_leaves_everything_as_it_was(own_warehouse, tmp_path):
    version = load_model(own_warehouse.root).manifest["version"]
    feed = own_warehouse.write_id("raw_feedback")
    broken = tmp_path / "broken.csv"
    broken.write_text("UserID,Event\n1,view\n")

    failed = run_graph(broken, own_warehouse)
    assert failure_of(failed).startswith(f"{broken}: no column 'ProductCode'")
    assert load_model(own_warehouse.root).manifest["version"] == version
    assert own_warehouse.write_id("raw_feedback") == feed


def test_last_without_timestamps_says_so(parity_csv, own_warehouse):
    selection = alone("leave_one_out_split")
    result = run_graph(parity_csv, own_warehouse, ops=splitting(strategy="last"), selection=selection)

    assert "needs timestamps" in failure_of(result)


def test_a_feed_in_which_nobody_has_enough_interactions_says_so(tmp_path, warehouse):
    path = tmp_path / "thin.csv"
    path.write_text("UserID,ProductCode,Event\n" + "".join(f"{u},{u % 3},view\n" for u in range(9)))

    assert "no user has 3 interactions or more (the most is 1)" in failure_of(run_graph(path, warehouse))


def test_dislikes_are_reported_and_stop_the_search(tmp_path, warehouse):
    path = tmp_path / "crawler.csv"
    rows = [f"7,{item},view" for item in range(12)] + [
        f"{u},{i},view" for u in range(6) for i in range(u, u + 4)
    ]
    path.write_text("UserID,ProductCode,Event\n" + "\n".join(rows) + "\n")

    result = run_graph(path, warehouse)
    assert metadata_of(result, "bm25_matrix")["Weights at or below zero"] == 12
    assert "1 users touched all 12 items" in failure_of(result)
    assert failure_of(result).count(": 7.") == 1
    assert set(failed_checks_of(result)) == {"every_weight_is_positive"}


def entries_in(warehouse):
    """The finished trials that the journal of a search knows."""
    return sorted((warehouse.root / "search_journal").glob("*/*.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"factors": []}, "at least 1 item", id="empty list"),
        pytest.param({"factors": [0]}, "greater than or equal to 1", id="no factors"),
        pytest.param({"alpha": [-1.0]}, "greater than 0", id="negative"),
        pytest.param({"regularization": [-0.1]}, "greater than or equal to 0", id="negative penalty"),
        pytest.param({"bm25_B": [1.2]}, "less than or equal to 1", id="share above 1"),
        pytest.param({"starts": [0]}, "greater than or equal to 1", id="no starts"),
        pytest.param({"starts": [2], "ensemble_size": [3]}, "give ensemble_size alone", id="two names"),
        pytest.param({"preset": "quick"}, "leave out factors, regularization, alpha", id="preset and lists"),
        pytest.param({"seed": 2**32}, "less than 4294967296", id="seed too large for implicit"),
    ],
)
def test_a_grid_that_makes_no_sense_fails_before_anything_runs(parity_csv, warehouse, change, message):
    with pytest.raises(InvalidConfigurationError) as refused:
        run_graph(parity_csv, warehouse, ops=searching(**change), selection=alone("grid_search_results"))

    assert refused.value.message.startswith("grid_search_results: ")
    assert message in refused.value.message
    assert not warehouse.root.exists()


def test_a_typo_in_the_configuration_fails_before_anything_runs(parity_csv, warehouse):
    with pytest.raises(DagsterInvalidConfigError, match='unexpected config entry "factor"'):
        run_graph(parity_csv, warehouse, ops={"grid_search_results": {"config": {"factor": [4]}}})
    assert not warehouse.root.exists()


@pytest.mark.runs
def test_a_trial_that_fails_is_a_row_with_its_reason_and_the_search_goes_on(parity_csv, own_warehouse):
    ops = searching(alpha=[10.0, 1e38], reuse_finished_trials=False)
    result = run_graph(parity_csv, own_warehouse, ops=ops, selection=alone("grid_search_results"))

    assert result.success
    assert failed_checks_of(result) == {}
    assert metadata_of(result, "grid_search_results")["Failed trials"] == 4
    rows = own_warehouse.read_table("grid_search_results").to_pylist()
    assert [row["alpha"] for row in rows] == [10.0] * 4 + [1e38] * 4
    assert all("NaN" in row["failure"] and row["MAP@10"] is None for row in rows[4:])
    assert all(row["failure"] is None for row in rows[:4])


def test_the_chosen_trial_is_trained_by_implicit_too_and_scores_the_same(shared_result, shared_warehouse):
    metadata = metadata_of(shared_result, "grid_search_results")
    stored = stored_metadata(shared_warehouse.read_table("grid_search_results"))
    agreement = stored["agreement"]

    assert stored["solver"] == "batched"
    assert agreement["reference_map"] == pytest.approx(metadata["MAP@10 (search)"], rel=0.05)
    assert agreement["ranks_differing"] <= 0.05
    assert metadata["agreement with implicit"].startswith(
        f"MAP@10 {agreement['reference_map']:.4f} by implicit, {agreement['map']:.4f} by this solver: "
    )
    checks = {check.check_name: check for check in shared_result.get_asset_check_evaluations()}
    assert "difference in MAP@10" in checks["the_solver_agrees_with_implicit"].metadata


@pytest.mark.parametrize("options", [{"nu": [0.5]}, {"solver": "implicit"}, {"compare_with_implicit": False}])
def test_where_there_is_nothing_to_compare_the_check_says_so(options, parity_csv, own_warehouse):
    # The released configuration is one that `implicit` can train, and might win.
    shutil.rmtree(own_warehouse.root / "releases")
    selection = alone("grid_search_results") | AssetSelection.checks_for_assets("grid_search_results")
    result = run_graph(parity_csv, own_warehouse, ops=searching(**options), selection=selection)

    assert "MAP@10 by implicit" not in metadata_of(result, "grid_search_results")
    (check,) = [
        check
        for check in result.get_asset_check_evaluations()
        if check.check_name == "the_solver_agrees_with_implicit"
    ]
    assert check.passed
    assert check.description.startswith("Nothing to compare")


@pytest.mark.runs
def test_a_search_in_which_all_fails_fails(parity_csv, warehouse):
    ops = searching(alpha=[1e38], regularization=[0.1])

    assert "all 2 trials failed; the first: " in failure_of(run_graph(parity_csv, warehouse, ops=ops))
    assert not warehouse.has("grid_search_results")


def test_implicit_is_not_asked_for_what_it_cannot_do(parity_csv, own_warehouse):
    search = alone("grid_search_results")
    ops = searching(nu=[0.5], solver="implicit")
    result = run_graph(parity_csv, own_warehouse, ops=ops, selection=search)

    assert "Choose solver `batched`" in failure_of(result)
