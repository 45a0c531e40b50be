"""What counts as a hit, and what may be recommended, where there are several events."""

import numpy as np
import pytest
from dagster import AssetSelection

from recsys_pipeline import load_model
from recsys_pipeline.assets import splitting
from recsys_pipeline.assets.pairs import Pairs
from recsys_pipeline.assets.splitting import holdouts
from recsys_pipeline_tests.worlds import SMALL_GRID, failure_of, metadata_of, run_graph

STRENGTHS = {"view": 1.0, "buy": 3.0}
PURCHASES = {"strengths": STRENGTHS, "target_events": ["buy"], "seen_events": ["buy"]}
KEEP = {"leave_one_out_split": {"config": {"keep_other_events": True}}}
N_USERS = 30


@pytest.fixture
def shop_csv(tmp_path):
    """Everybody views 8 items of their parity, carts none, and buys 3 of those viewed."""
    rng = np.random.default_rng(5)
    lines = ["UserID,ProductCode,Event"]
    for user in range(N_USERS):
        viewed = rng.choice(np.arange(user % 2, 50, 2), 8, replace=False)
        lines += [f"u{user},{item},view" for item in viewed] + [f"u{user},{item},buy" for item in viewed[:3]]
    path = tmp_path / "shop.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_only_a_purchase_is_held_out_and_its_view_stays(shop_csv, warehouse):
    result = run_graph(shop_csv, warehouse, ops=KEEP, **PURCHASES)
    assert result.success

    pairs = Pairs.from_tables(warehouse.read_tables("bm25_matrix"))
    split = warehouse.read_table("leave_one_out_split")
    assert split.num_rows == N_USERS
    (holdout,) = holdouts(pairs, split, {"default": None})
    positions = pairs.pattern.positions_of(holdout.users, holdout.items)
    assert (pairs.counts["buy"][positions] == 1).all()
    assert (holdout.strengths["default"][positions] == 4.0).all()
    assert (holdout.left["default"][positions] == 1.0).all()
    assert (holdout.events["view"][positions] & ~holdout.events["buy"][positions]).all()
    # The two other purchases hide their items, nothing else does.
    assert np.count_nonzero(holdout.seen) == 2 * N_USERS


def test_or_nothing_of_the_pair_stays(shop_csv, warehouse):
    assert run_graph(shop_csv, warehouse, **PURCHASES).success

    pairs = Pairs.from_tables(warehouse.read_tables("bm25_matrix"))
    (holdout,) = holdouts(pairs, warehouse.read_table("leave_one_out_split"), {"default": None})
    positions = pairs.pattern.positions_of(holdout.users, holdout.items)
    assert (holdout.left["default"][positions] == 0).all()
    assert not holdout.events["view"][positions].any()


def test_an_event_that_stays_must_not_hide_the_item(shop_csv, warehouse):
    result = run_graph(shop_csv, warehouse, ops=KEEP, strengths=STRENGTHS, target_events=["buy"])

    assert "Name the events that hide an item in `seen_events`" in failure_of(result)


def test_what_was_viewed_is_recommended_and_what_was_bought_is_not(shop_csv, warehouse):
    assert run_graph(shop_csv, warehouse, ops=KEEP, **PURCHASES).success
    model = load_model(warehouse.root)
    events = [line.split(",") for line in shop_csv.read_text().splitlines()[1:]]
    for user in ("u0", "u7"):
        viewed, bought = (
            {int(item) for who, item, event in events if who == user and event == name}
            for name in ("view", "buy")
        )
        listed = model.recommend(user, n=50)
        assert not bought & set(listed["item"])
        assert viewed - bought <= set(listed["item"])
        assert set(listed["item"][listed["already_liked"]]) == viewed - bought
    assert model.manifest["seen_events"] == ["buy"]


def test_the_blend_is_an_option_of_the_recommendations(shop_csv, warehouse):
    search = {"grid_search_results": {"config": {**SMALL_GRID, "blend": True}}}
    result = run_graph(shop_csv, warehouse, ops={**KEEP, **search}, evaluate=True, **PURCHASES)
    assert result.success

    model = load_model(warehouse.root)
    assert set(model.manifest["blend"]["events"]) == {"view", "buy"}
    listed = model.recommend("u0", n=5, blend=True)
    # Everybody buys what they viewed: the blend puts that first.
    assert listed["already_liked"].all()
    assert listed["score"].is_monotonic_decreasing
    names = warehouse.read_table("evaluation", "models")["model"].to_pylist()
    assert {"blend", "own history"} <= set(names)


def test_a_model_without_a_blend_says_how_to_get_one(shop_csv, warehouse):
    assert run_graph(shop_csv, warehouse, **PURCHASES).success

    with pytest.raises(ValueError, match="set `blend` of grid_search_results to true"):
        load_model(warehouse.root).recommend("u0", blend=True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param({"target_events": ["refund"]}, "target_events: refund has no strength", id="target"),
        pytest.param({"seen_events": ["refund"]}, "seen_events: refund has no strength", id="seen"),
    ],
)
def test_an_event_that_is_not_known_is_refused(shop_csv, warehouse, config, message):
    with pytest.raises(ValueError, match=message):
        run_graph(shop_csv, warehouse, strengths=STRENGTHS, **config)


def test_other_strengths_and_no_weighting_are_dimensions_of_the_search(shop_csv, warehouse):
    search = {
        **SMALL_GRID,
        "regularization": [0.1],
        "iterations": [6],
        "weighting": ["bm25", "none"],
        "strength_mappings": {"equal": {"view": 1, "buy": 1}, "buy_only": {"buy": 1}},
    }
    result = run_graph(shop_csv, warehouse, ops={"grid_search_results": {"config": search}}, **PURCHASES)
    assert result.success

    rows = warehouse.read_table("grid_search_results").to_pylist()
    assert len(rows) == 6
    assert {(row["strengths"], row["weighting"]) for row in rows} == {
        (mapping, weighting) for mapping in ("default", "equal", "buy_only") for weighting in ("bm25", "none")
    }
    assert all((row["bm25_K1"] is None) == (row["weighting"] == "none") for row in rows)
    table = metadata_of(result, "grid_search_results")["worth_of_strengths"]
    assert all(f"| {mapping} |" in table for mapping in ("default", "equal", "buy_only"))


def test_a_mapping_that_leaves_events_out_trains_on_the_rest(shop_csv, warehouse):
    search = {**SMALL_GRID, "strength_mappings": {"buy_only": {"buy": 1}}, "weighting": ["none"]}
    assert run_graph(
        shop_csv, warehouse, ops={"grid_search_results": {"config": search}}, **PURCHASES
    ).success
    results = warehouse.read_table("grid_search_results")
    # Whichever won, choose the one that leaves the views out, and make its model.
    rows = results.to_pylist()
    chosen = next(place for place, row in enumerate(rows) if row["strengths"] == "buy_only")
    place = results.schema.get_field_index("chosen")
    forced = results.set_column(place, "chosen", [[n == chosen for n in range(len(rows))]])
    warehouse.write_table(forced, "grid_search_results")

    result = run_graph(shop_csv, warehouse, selection=AssetSelection.assets("best_model"), **PURCHASES)
    assert result.success
    model = load_model(warehouse.root)
    assert model.user_items.nnz == 3 * N_USERS
    assert (model.user_items.data == 1).all()
    assert model.manifest["strengths"] == {"buy": 1.0}


def test_strength_mappings_must_name_known_events(shop_csv, warehouse):
    search = {**SMALL_GRID, "strength_mappings": {"odd": {"refund": 1}}}
    result = run_graph(shop_csv, warehouse, ops={"grid_search_results": {"config": search}}, **PURCHASES)

    assert "the feedback has no refund" in failure_of(result)


def of_file(path, **config):
    return {"leave_one_out_split": {"config": {"strategy": "file", "file": str(path), **config}}}


def test_held_out_pairs_can_come_from_a_file(shop_csv, warehouse, tmp_path):
    pairs = [("u0", 0), ("u0", 2), ("u1", 1), ("stranger", 4), ("other stranger", 4), ("u1", 9999)]
    file = tmp_path / "test.csv"
    lines = [f"{user},{item},buy" for user, item in [*pairs, pairs[0]]]
    file.write_text("UserID,ProductCode,Event\n" + "\n".join(lines) + "\n")
    result = run_graph(shop_csv, warehouse, ops=of_file(file), **PURCHASES)
    assert result.success

    split = warehouse.read_table("leave_one_out_split").to_pylist()
    assert [(row["UserID"], row["ProductCode"]) for row in split] == pairs
    assert [row["user_index"] >= N_USERS for row in split] == [False] * 3 + [True, True, False]
    assert split[3]["user_index"] != split[4]["user_index"]
    assert split[5]["item_index"] == -1
    (best, *_) = warehouse.read_table("grid_search_results").to_pylist()
    # Of four users two are strangers, who stay in the denominator.
    assert best["HitRate@10"] in (0, 1 / 4, 2 / 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("UserID,Event\nu0,buy\n", "cannot read the columns UserID, ProductCode", id="column"),
        pytest.param("UserID,ProductCode\nu0,x\n", "ProductCode is not int64 as in the feedback", id="type"),
        pytest.param("UserID,ProductCode\n", "has no rows", id="empty"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(shop_csv, warehouse, tmp_path, content, message):
    file = tmp_path / "test.csv"
    file.write_text(content)

    assert message in failure_of(run_graph(shop_csv, warehouse, ops=of_file(file), **PURCHASES))


def test_several_splits_are_averaged(shop_csv, warehouse):
    ops = {"leave_one_out_split": {"config": {"n_splits": 3}}}
    assert run_graph(shop_csv, warehouse, ops=ops, **PURCHASES).success

    split = warehouse.read_table("leave_one_out_split")
    assert split["split"].to_pylist() == [0] * N_USERS + [1] * N_USERS + [2] * N_USERS
    ranks = warehouse.read_table("trial_ranks").to_pylist()
    results = warehouse.read_table("grid_search_results").to_pylist()
    assert len(ranks[0]["ranks"]) == 3 * N_USERS
    reciprocal = np.array([1 / rank if rank <= 10 else 0 for rank in ranks[0]["ranks"]])
    assert results[0]["MAP@10"] == pytest.approx(reciprocal.mean())
    of_users = reciprocal.reshape(3, N_USERS).mean(axis=0)
    assert results[0]["MAP@10 standard error"] == pytest.approx(of_users.std(ddof=1) / np.sqrt(N_USERS))


def test_halving_over_several_splits_goes_on_from_every_state(shop_csv, warehouse):
    search = {**SMALL_GRID, "iterations": [4, 12], "strategy": "halving", "first_rung": 3}
    ops = {
        "leave_one_out_split": {"config": {"n_splits": 2}},
        "grid_search_results": {"config": search},
    }
    assert run_graph(shop_csv, warehouse, ops=ops, **PURCHASES).success
    halved = {
        (row["regularization"], row["iterations"]): row["MAP@10"]
        for row in warehouse.read_table("grid_search_results").to_pylist()
        if row["iterations_done"] == row["iterations"]
    }
    ops["grid_search_results"] = {"config": {**search, "strategy": "grid", "reuse_finished_trials": False}}
    assert run_graph(shop_csv, warehouse, ops=ops, **PURCHASES).success

    for row in warehouse.read_table("grid_search_results").to_pylist():
        key = row["regularization"], row["iterations"]
        assert halved.get(key, row["MAP@10"]) == row["MAP@10"]


def test_the_simplest_can_be_preferred(shop_csv, warehouse):
    search = {**SMALL_GRID, "factors": [2, 4, 8], "prefer": "simplest"}
    assert run_graph(
        shop_csv, warehouse, ops={"grid_search_results": {"config": search}}, **PURCHASES
    ).success

    rows = warehouse.read_table("grid_search_results").to_pylist()
    (chosen,) = [row for row in rows if row["chosen"]]
    equals = [row for row in rows if not row["distinguishable"]]
    assert chosen["factors"] == min(row["factors"] for row in equals)
    assert load_model(warehouse.root).manifest["hyperparameters"]["factors"] == chosen["factors"]


def test_a_leak_is_caught(shop_csv, warehouse, monkeypatch):
    """Held-out pairs that stay in training on purpose."""
    monkeypatch.setattr(splitting.Pairs, "hold_out", leaky(splitting.Pairs.hold_out))
    result = run_graph(shop_csv, warehouse, **PURCHASES)

    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert [check.check_name for check in failed] == ["no_held_out_event_is_in_training"]
    assert failed[0].metadata["held_out_events_in_training"].value == N_USERS


def leaky(hold_out):
    def leaking(self, *args, **kwargs):
        holdout = hold_out(self, *args, **kwargs)
        return holdout._replace(left=dict(holdout.strengths))

    return leaking
