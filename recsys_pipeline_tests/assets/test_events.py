"""What counts as a hit, and what may be recommended, where there are several events."""

import numpy as np
import pyarrow as pa
import pytest
from dagster import Failure, build_asset_context
from pydantic import ValidationError

from recsys_pipeline import load_model
from recsys_pipeline.assets.grid_config import GridConfig
from recsys_pipeline.assets.model import best_model
from recsys_pipeline.assets.search import grid_search_results
from recsys_pipeline.assets.splitting import SplitConfig, leave_one_out_split
from recsys_pipeline.checks.split import one_held_out_interaction_a_user, what_is_held_out_may_be_held_out
from recsys_pipeline.core.baseline_tables import ChosenBaselines
from recsys_pipeline.core.blending import GROUPS
from recsys_pipeline.core.hyperparameters import DIMENSIONS
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.rebuilding import rebuild
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.releases import current_release
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.core.small_feeds import (
    as_split,
    baselines_of,
    given_split,
    interactions_of,
    shop_events,
    split_of,
    stored_matrix_of,
)
from recsys_pipeline_tests.worlds import SMALL_GRID, made_model, metadata_of, run_graph

pytestmark = pytest.mark.runs

STRENGTHS = {"view": 1.0, "buy": 3.0}
PURCHASES = {"target_events": ["buy"], "seen_events": ["buy"]}
N_USERS = 30

# --- In the graph --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A shop where a purchase alone is held out and excludes its item, with a blend and an item graph."""
    folder = tmp_path_factory.mktemp("shop")
    lines = [f"{user},{item},{event}" for user, item, event in shop_events()]
    (folder / "shop.csv").write_text("\n".join(["UserID,ProductCode,Event", *lines]) + "\n")
    warehouse = Warehouse(path=str(folder / "warehouse"))
    ops = {
        "leave_one_out_split": {"config": {"keep_other_events": True}},
        "grid_search_results": {"config": {**SMALL_GRID, "blend": True}},
        "recommendations": {"config": {"scorer": "auto"}},
        "similar_items": {"config": {"scorer": "graph"}},
    }
    result = run_graph(
        folder / "shop.csv", warehouse, ops=ops, evaluate=True, strengths=STRENGTHS, **PURCHASES
    )
    assert result.success
    return result, warehouse


def test_only_a_purchase_of_each_user_is_held_out(shop):
    result, warehouse = shop
    bought = {(user, item) for user, item, event in shop_events() if event == "buy"}
    split = warehouse.read_table("leave_one_out_split")
    held_out = list(zip(split["UserID"].to_pylist(), split["ProductCode"].to_pylist(), strict=True))

    assert len(held_out) == len(set(held_out)) == N_USERS
    assert set(held_out) <= bought
    # Its view stays.
    assert metadata_of(result, "leave_one_out_split")["Training interactions"] == 8 * N_USERS
    assert all(check.passed for check in result.get_asset_check_evaluations())


def test_what_was_viewed_is_recommended_and_what_was_bought_is_not(shop):
    model = made_model(shop[1])
    for user in ("u0", "u7"):
        viewed, bought = (
            {item for who, item, event in shop_events() if who == user and event == name}
            for name in ("view", "buy")
        )
        listed = model.recommend(user, n=50)
        assert not bought & set(listed["item"])
        assert viewed - bought <= set(listed["item"])
        assert set(listed["item"][listed["already_liked"]]) == viewed - bought
    assert model.manifest["seen_events"] == ["buy"]


def test_the_blend_is_an_option_of_the_recommendations(shop):
    _, warehouse = shop
    model = made_model(warehouse)
    listed = model.recommend("u0", n=5, blend=True)

    assert set(model.manifest["blend"]["events"]) == {"view", "buy"}
    # Everybody buys what they viewed: the blend puts that first.
    assert listed["already_liked"].all()
    assert listed["score"].is_monotonic_decreasing
    names = warehouse.read_table("evaluation", "models")["model"].to_pylist()
    assert {"blend", "repeat consumption"} <= set(names)


def test_the_evidence_makes_the_blend_the_scorer_of_what_is_released(shop):
    result, warehouse = shop
    told = metadata_of(result, "recommendations")
    manifest = load_model(warehouse.root).manifest
    stored = stored_metadata(warehouse.open_table("recommendations"))

    assert stored["scorer"] == manifest["scorer"] == "blend"
    assert stored["scorer_asked_for"] == "auto"
    assert told["scorer"].startswith("scored by the blend, which is better than ALS by more than chance: ")
    assert any(" of the blend against " in reason for reason in manifest["decision"]["reasons_for"])
    assert "The lists are by the blend, which is better" in metadata_of(result, "model_card")["card"]


def test_a_reader_gets_the_lists_that_were_released(shop):
    model = load_model(shop[1].root)
    released = shop[1].read_table("recommendations").to_pandas().set_index("UserID")
    users = list(dict.fromkeys(released.index))
    many = model.recommend_many(users, n=20, fill_up=True).set_index("user")

    assert many["item"].tolist() == released["ProductCode"].tolist()
    assert many["score"].to_numpy() == pytest.approx(released["score"].to_numpy(), abs=1e-5)
    assert many["source"].tolist() == released["source"].tolist()
    one = model.recommend(users[3], n=20, fill_up=True)
    assert one["item"].tolist() == released.loc[users[3], "ProductCode"].tolist()
    assert set(model.recommend(users[3], blend=False)["source"]) == {"als"}


def test_and_the_similar_items_too(shop):
    model = load_model(shop[1].root)
    released = shop[1].read_table("similar_items").to_pandas().set_index("ProductCode")

    assert model.manifest["similar_items_scorer"] == "graph"
    tuned = ChosenBaselines.of(shop[1].read_table("baselines")).graph
    assert tuned.strengths == STRENGTHS
    assert model.manifest["graph"] == model.manifest["blend"]["filter"] == tuned.as_dict()
    for item in (0, 7):
        similar = model.similar_items(item, n=20)
        assert similar["item"].tolist() == released.loc[item, "SimilarProductCode"].tolist()
        assert similar["score"].tolist() == released.loc[item, "score"].tolist()


def test_the_evaluation_says_what_each_group_of_terms_is_worth(shop):
    result, warehouse = shop
    models = warehouse.read_table("evaluation", "models")
    rows = {row["model"]: row for row in models.to_pylist()}
    told = {each["group"]: each for each in stored_metadata(models)["blend_terms"]}

    assert list(told) == list(GROUPS)
    assert (rows["blend"]["difference_to_blend_low"], rows["blend"]["difference_to_blend_high"]) == (0, 0)
    row, history = rows["blend without the own history"], told["the own history"]
    # What it adds is the difference the other way round, on the seeds that both were measured on.
    assert history["map_without"] == row["map"]
    assert history["low"] == -row["difference_to_blend_high"]
    assert history["high"] == -row["difference_to_blend_low"]
    assert history["low"] <= history["adds"] <= history["high"]
    metadata = metadata_of(result, "evaluation")
    assert f"| the own history | {row['map']:.4f} | " in metadata["blend terms"]
    assert "without" not in metadata["verdict"] + metadata["models"] + metadata["segments"]


def test_the_release_can_be_rebuilt(shop, tmp_path):
    rebuilt = rebuild(current_release(shop[1].root), tmp_path, None, lambda _: None)

    assert rebuilt.identical
    assert {"recommendations.parquet", "similar_items.parquet"} <= set(rebuilt.files)


# --- Called one by one ---------------------------------------------------------------------------

SHOP = interactions_of(shop_events(), STRENGTHS, **PURCHASES)


def split(interactions=SHOP, **config):
    """What `leave_one_out_split` makes."""
    with build_asset_context() as context:
        return leave_one_out_split(
            context,
            SplitConfig(**config),
            feedback=Feedback(path="feedback.csv"),
            bm25_matrix=stored_matrix_of(interactions),
        )


def search(warehouse, table=None, **config):
    """What `grid_search_results` makes of one trial, or of the lists in its place."""
    table = split().value if table is None else table
    with build_asset_context() as context:
        return grid_search_results(
            context,
            GridConfig(**{**SMALL_GRID, "regularization": [0.1], "iterations": [6], "workers": 1, **config}),
            warehouse=warehouse,
            bm25_matrix=stored_matrix_of(SHOP),
            leave_one_out_split=table,
            baselines=baselines_of(table),
        )


def published(warehouse, results):
    """The model of the chosen row."""
    with build_asset_context() as context:
        best_model(
            context,
            warehouse=warehouse,
            bm25_matrix=stored_matrix_of(SHOP),
            grid_search_results=results,
        )
    return made_model(warehouse)


@pytest.mark.parametrize("event", ["target_events", "seen_events"])
def test_an_event_that_is_not_known_is_refused(event):
    with pytest.raises(ValidationError, match=f"{event}: refund has no strength"):
        Feedback(path="feedback.csv", strengths=STRENGTHS, **{event: ["refund"]})


def test_an_event_that_stays_must_not_exclude_the_item():
    with pytest.raises(Failure) as caught:
        split(interactions_of(shop_events(), STRENGTHS, target_events=["buy"]), keep_other_events=True)
    assert "Name the events that exclude an item in `seen_events`" in caught.value.description


def test_a_model_without_a_blend_says_how_to_get_one(warehouse):
    model = published(warehouse, search(warehouse).value["grid_search_results"])

    with pytest.raises(ValueError, match="set `blend` of grid_search_results to true"):
        model.recommend("u0", blend=True)


def test_other_strengths_and_no_weighting_are_dimensions_of_the_search(warehouse):
    mappings = {"equal": {"view": 1.0, "buy": 1.0}, "buy_only": {"buy": 1.0}}
    result = search(warehouse, weighting=["bm25", "none"], strength_mappings=mappings)

    rows = result.value["grid_search_results"].to_pylist()
    assert len(rows) == 6
    assert {(row["strengths"], row["weighting"]) for row in rows} == {
        (mapping, weighting) for mapping in ("default", *mappings) for weighting in ("bm25", "none")
    }
    assert all((row["bm25_K1"] is None) == (row["weighting"] == "none") for row in rows)
    worth = result.metadata["best by strengths"].md_str
    assert all(f"| {mapping} |" in worth for mapping in ("default", "equal", r"buy\_only"))


def test_a_mapping_that_leaves_events_out_makes_a_model_of_the_rest(warehouse):
    result = search(warehouse, weighting=["none"], strength_mappings={"buy_only": {"buy": 1.0}})
    results = result.value["grid_search_results"]
    # Whichever won, choose the one that leaves the views out.
    chosen = pa.array([mapping == "buy_only" for mapping in results["strengths"].to_pylist()])
    forced = results.set_column(results.schema.get_field_index("chosen"), "chosen", chosen)
    model = published(warehouse, forced)

    assert model.user_items.nnz == 3 * N_USERS
    assert (model.user_items.data == 1).all()
    assert model.manifest["strengths"] == {"buy": 1.0}
    assert set(model.manifest["hyperparameters"]) == {dimension.name for dimension in DIMENSIONS}


def test_the_simplest_can_be_preferred(warehouse):
    results = search(warehouse, factors=[2, 4, 8], prefer="simplest").value["grid_search_results"]

    (chosen,) = [row for row in results.to_pylist() if row["chosen"]]
    equals = [row for row in results.to_pylist() if not row["distinguishable"]]
    assert chosen["factors"] == min(row["factors"] for row in equals)
    assert published(warehouse, results).manifest["hyperparameters"]["factors"] == chosen["factors"]


def test_several_splits_are_averaged(warehouse):
    table = split(n_splits=3).value
    tables = search(warehouse, table).value

    assert table["split"].to_pylist() == [0] * N_USERS + [1] * N_USERS + [2] * N_USERS
    (trial,) = tables["trial_ranks"].to_pylist()
    (row,) = tables["grid_search_results"].to_pylist()
    assert len(trial["ranks"]) == 3 * N_USERS
    reciprocal = np.array([1 / rank if rank <= 10 else 0 for rank in trial["ranks"]])
    assert row["MAP@10"] == pytest.approx(reciprocal.mean())
    of_users = reciprocal.reshape(3, N_USERS).mean(axis=0)
    assert row["map_at_10_standard_error"] == pytest.approx(of_users.std(ddof=1) / np.sqrt(N_USERS))


def test_held_out_interactions_can_come_from_a_file(warehouse, tmp_path):
    given = [("u0", 0), ("u0", 2), ("u1", 1), ("stranger", 4), ("other stranger", 4), ("u1", 9999)]
    file = tmp_path / "test.csv"
    lines = [f"{user},{item},buy" for user, item in [*given, given[0]]]
    file.write_text("\n".join(["UserID,ProductCode,Event", *lines]) + "\n")
    result = split(strategy="file", file=str(file))

    table = result.value
    assert list(zip(table["UserID"].to_pylist(), table["ProductCode"].to_pylist(), strict=True)) == given
    users, items = table["user_index"].to_pylist(), table["item_index"].to_pylist()
    assert [user >= N_USERS for user in users] == [False] * 3 + [True, True, False]
    assert users[3] != users[4]
    assert items[5] == -1
    unknown = [result.metadata[f"Held-out rows of unknown {kind}"] for kind in ("users", "items")]
    assert unknown == [2, 1]
    assert stored_metadata(table)["strategy"] == "file"
    (row,) = search(warehouse, table).value["grid_search_results"].to_pylist()
    # Of four users two are strangers, who stay in the denominator.
    assert row["hit_rate_at_10"] in (0, 1 / 4, 2 / 4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param("UserID,Event\nu0,buy\n", "no column 'ProductCode'", id="column"),
        pytest.param(
            "UserID,ProductCode\nu0,x\n",
            "the ProductCode ids are integers in the feedback, and line 2 has",
            id="type",
        ),
        pytest.param("UserID,ProductCode\n", "has no rows", id="empty"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, content, message):
    file = tmp_path / "test.csv"
    file.write_text(content)

    with pytest.raises(Failure) as caught:
        split(strategy="file", file=str(file))
    assert message in caught.value.description


# --- What the checks count for themselves --------------------------------------------------------

# Interactions in order: (1, a) viewed and bought, (1, b) viewed, (2, a) bought.
FEW = [(1, "a", "view"), (1, "a", "buy"), (1, "b", "view"), (2, "a", "buy")]


def counted(table, **rules):
    interactions = interactions_of(FEW, STRENGTHS, **rules)
    check = what_is_held_out_may_be_held_out(
        leave_one_out_split=table(interactions), bm25_matrix=stored_matrix_of(interactions)
    )
    return check.passed, {name: value.value for name, value in check.metadata.items() if value.value}


def no_interaction(interactions):
    return as_split(given_split(interactions, [(1, "a"), (2, "b")]))


def under_another_id(interactions):
    table = split_of(interactions, [0, 2])
    return table.set_column(0, "UserID", pa.array([1, 1]))


@pytest.mark.parametrize(
    ("table", "rules", "expected"),
    [
        pytest.param(
            lambda interactions: split_of(interactions, [0, 2], keep_other_events=True),
            PURCHASES,
            (True, {}),
            id="purchases",
        ),
        pytest.param(no_interaction, PURCHASES, (False, {"unknown_interactions": 1}), id="no interaction"),
        pytest.param(
            lambda interactions: split_of(interactions, [1, 2]),
            PURCHASES,
            (False, {"without_target_event": 1}),
            id="a view",
        ),
        pytest.param(under_another_id, PURCHASES, (False, {"under_other_ids": 1}), id="another id"),
        pytest.param(
            lambda interactions: split_of(interactions, [0, 2], keep_other_events=True),
            {"target_events": ["buy"]},
            (False, {"excluded_from_recommendation": 1}),
            id="a view that stays and excludes",
        ),
        pytest.param(
            lambda interactions: given_split(interactions, [(1, "b"), (7, "z")]),
            PURCHASES,
            (True, {"unknown_interactions": 1, "without_target_event": 1}),
            id="a file may name anybody and anything",
        ),
    ],
)
def test_what_may_not_be_held_out_is_counted(table, rules, expected):
    assert counted(table, **rules) == expected


@pytest.mark.parametrize(
    ("positions", "expected"),
    [([[0, 2]], True), ([[0, 2], [1, 2]], True), ([[0, 1]], False)],
    ids=["one a user", "one a user and split", "two of a user"],
)
def test_two_held_out_interactions_of_a_user_are_counted(positions, expected):
    table = split_of(interactions_of(FEW, STRENGTHS), *positions)

    assert one_held_out_interaction_a_user(leave_one_out_split=table).passed == expected
