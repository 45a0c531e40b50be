"""The claims can be false, say so with numbers, and know what is usual."""

import re
from collections import Counter
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from dagster import AssetCheckKey, AssetCheckSeverity, AssetKey, AssetSelection, DagsterInstance

from recsys_pipeline.automation.nights import readers_are_served
from recsys_pipeline.checks import evaluation, feedback, lists, matrix, model, search, split
from recsys_pipeline.checks.claims import batches
from recsys_pipeline.checks.past import distance
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.definitions import defs
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.worlds import alone, failed_checks_of, failure_of, model_of, run_graph


def counted(definition, *inputs):
    """What became of each claim, by name, and why later assets would not run."""
    results, stopped = {}, ""
    try:
        for result in definition.op.compute_fn.decorated_fn(*inputs):
            results[result.check_name] = result
    except Exception as error:
        stopped = error.description
    return results, stopped


def dataset(**columns):
    return ds.dataset(pa.table(columns))


def test_every_asset_has_a_claim_and_every_claim_says_what_it_claims():
    specs = [spec for check in defs.asset_checks for spec in check.check_specs]

    # Of what is delivered or logged elsewhere the asset itself says whether it is there.
    claimed = {spec.asset_key.to_user_string() for spec in specs}
    assert {asset.key.to_user_string() for asset in defs.assets} - claimed == {"delivery", "mlflow_run"}
    assert all(spec.description for spec in specs)


def test_the_page_on_checks_has_every_claim_and_says_whether_it_stops():
    page = (PROJECT / "docs" / "checks.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| ([^|]+) \|", page, re.MULTILINE)
    told = {(asset, name): stops.strip() == "stops" for asset, name, stops in rows}
    specs = [
        *(spec for check in defs.asset_checks for spec in check.check_specs),
        *(spec for asset in defs.assets for spec in asset.check_specs),
    ]

    assert told == {
        (spec.asset_key.to_user_string(), spec.name): spec.blocking
        for spec in specs
        if spec.name != readers_are_served.check_key.name  # of docs/nights.md
    }


# --- Events ---


@pytest.mark.parametrize(
    ("strengths", "n_bad"), [([1.0, 2.0], 0), ([1.0, 0.0], 1), ([float("inf"), None], 2), ([float("nan")], 1)]
)
def test_a_strength_that_is_none_stops_what_follows(strengths, n_bad):
    table = dataset(strength=pa.array(strengths, pa.float64()))
    results, stopped = counted(feedback.claims_of_feedback_strengths, table)

    (result,) = results.values()
    assert result.passed == (n_bad == 0)
    assert f"{n_bad:,} of them with a strength that is not above 0" in result.description
    assert stopped.endswith("What follows is not made, and readers keep what they have.") == (n_bad > 0)


@pytest.mark.parametrize(
    ("ids", "n_blank"), [([1, 2], 0), ([1, None], 1), (["a", " "], 1), (["", None, "0"], 2)]
)
def test_blank_ids_are_counted(ids, n_blank):
    assert feedback._n_blank(pa.array(ids)) == n_blank


# --- The matrix and the split ---


def tables(users=(0, 0, 1), items=(0, 1, 0), target=(True, False, True), names=("a", "b")):
    return {
        "pairs": dataset(
            user_index=np.array(users, np.int32), item_index=np.array(items, np.int32), target=list(target)
        ),
        "users": dataset(user_index=[0, 1], UserID=[10, 11]),
        "items": dataset(item_index=[0, 1], ProductCode=list(names)),
    }


@pytest.mark.parametrize(
    ("changed", "passed"),
    [
        pytest.param({}, True, id="all is well"),
        pytest.param({"users": (0, 1, 0)}, False, id="not in order"),
        pytest.param({"items": (0, 0, 0)}, False, id="a pair twice"),
        pytest.param({"items": (0, 2, 0)}, False, id="an index of no item"),
        pytest.param({"names": ("a", "a")}, False, id="an item twice"),
    ],
)
def test_pairs_are_those_of_the_ids(warehouse, changed, passed):
    results, stopped = counted(matrix.claims_of_bm25_matrix, warehouse, tables(**changed))

    assert results["pairs_have_their_ids"].passed == passed
    assert bool(stopped) != passed


@pytest.mark.parametrize(
    ("held_out", "max_users", "passed"),
    [
        pytest.param([0], 0, True, id="the one who is eligible"),
        pytest.param([0, 1], 0, False, id="one who is not"),
        pytest.param([], 0, False, id="nobody"),
    ],
)
def test_a_split_covers_who_has_enough_interactions(held_out, max_users, passed):
    stored = {"strategy": "random", "min_interactions": 2, "max_users": max_users}
    of_split = pa.table(
        {"user_index": pa.array(held_out, pa.int32()), "split": pa.array([0] * len(held_out), pa.int32())}
    )
    results, _ = counted(split.claims_of_leave_one_out_split, with_metadata(of_split, stored), tables())

    (result,) = results.values()
    assert result.passed == passed
    assert "of the 1 eligible ones are due" in result.description


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_who_is_eligible_does_not_depend_on_how_the_pairs_are_read(rows, monkeypatch):
    monkeypatch.setattr(split, "batches", partial(batches, rows=rows))
    stored = {"strategy": "random", "min_interactions": 2, "max_users": 0}
    # The first has bought nothing; of the last the two interactions lie apart.
    users, bought = [0, 0, 1, 2, 2, 2, 4, 4], [False, False, True, False, True, False, True, True]
    matrix = {"pairs": dataset(user_index=np.array(users, np.int32), target=bought)}
    matrix["users"] = dataset(user_index=range(5))
    held_out = pa.table({"user_index": pa.array([2, 4], pa.int32()), "split": pa.array([0, 0], pa.int32())})
    results, _ = counted(split.claims_of_leave_one_out_split, with_metadata(held_out, stored), matrix)

    (result,) = results.values()
    assert result.passed
    assert "2 of the 2 eligible ones are due" in result.description


# --- Search, evaluation, model ---


@pytest.mark.parametrize(
    ("chosen", "passed"), [([True, False], True), ([True, True], False), ([False] * 2, False)]
)
def test_one_trial_is_chosen(chosen, passed):
    results, _ = counted(
        search.claims_of_grid_search_results, pa.table({"chosen": chosen, "MAP@10": [0.1, 0.2]})
    )

    assert results["one_trial_is_chosen"].passed == passed


@pytest.mark.parametrize(
    ("scores", "failures", "passed"),
    [
        ([0.1, None], [None, "too many items"], True),
        ([0.1, None], [None, None], False),
        ([1.1], [None], False),
        ([None], ["too many items"], False),
    ],
)
def test_a_baseline_without_a_figure_says_why(scores, failures, passed):
    table = pa.table({"MAP@10": pa.array(scores, pa.float64()), "failure": pa.array(failures, pa.string())})
    results, _ = counted(search.claims_of_baselines, table)

    assert results["every_baseline_is_measured_or_says_why"].passed == passed


@pytest.mark.parametrize(
    ("factors", "width", "passed"),
    [([[1.0], [2.0]], 1, True), ([[1.0], [np.nan]], 1, False), ([[1.0], [2.0]], 2, False)],
)
def test_factors_are_finite_and_as_wide_as_the_hyperparameters_say(factors, width, passed):
    made = model_of(
        [[0], [1]], Factors(np.array(factors, np.float32), np.ones((2, 1), np.float32)), [1, 2], "ab"
    )
    made.manifest["hyperparameters"] = {"factors": width}
    results, _ = counted(model.claims_of_best_model, made)

    assert results["factors_are_finite_and_of_the_right_shape"].passed == passed


# --- Lists ---


def listed(users, ranks, items, scores=None):
    table = pa.table(
        {
            "UserID": users,
            "rank": pa.array(ranks, pa.int32()),
            "ProductCode": items,
            "score": scores or [0.5] * len(users),
        }
    )
    return ds.dataset(with_metadata(table, {"n": 2}))


CATALOGUE = pa.table({"ProductCode": ["a", "b", "c"], "recommendable": [True, True, False]})


@pytest.mark.parametrize(
    ("table", "false"),
    [
        pytest.param(listed([1, 1, 2], [1, 2, 1], ["a", "b", "a"]), set(), id="all is well"),
        pytest.param(listed([1, 1], [1, 3], ["a", "b"]), {lists._RANKED}, id="a gap"),
        pytest.param(listed([1, 2], [1, 2], ["a", "b"]), {lists._RANKED}, id="a list that begins at 2"),
        pytest.param(listed([1, 1, 1], [1, 2, 3], ["a", "b", "a"]), {lists._RANKED}, id="too long"),
        pytest.param(listed([1], [1], ["a"], [float("inf")]), {lists._RANKED}, id="no score"),
        pytest.param(listed([1], [1], ["c"]), {lists._OFFERED}, id="not on offer"),
        pytest.param(listed([1], [1], ["d"]), {lists._OFFERED}, id="of no catalogue"),
    ],
)
@pytest.mark.parametrize("rows", [1 << 20, 1], ids=["one batch", "a batch a row"])
def test_lists_are_ranked_and_on_offer(table, false, rows, monkeypatch):
    monkeypatch.setattr(lists, "batches", lambda *of, whole=lists.batches: whole(*of, rows=rows))
    results, stopped = counted(lists.claims_of_recommendations, table, CATALOGUE)

    assert {name for name, result in results.items() if not result.passed} == false
    assert all(name in stopped for name in false)


# --- Against earlier runs ---


def test_the_distance_of_two_mixes_is_the_share_that_changed_its_kind():
    assert distance(Counter(view=50, buy=50), {"view": 5, "buy": 5}) == pytest.approx(0.0)
    assert distance({"view": 80, "buy": 20}, {"view": 60, "buy": 40}) == pytest.approx(0.2)
    assert distance({"view": 1}, {"buy": 1}) == 1.0


THROUGH_EVENTS = alone("raw_feedback") | AssetSelection.checks_for_assets("raw_feedback")


@pytest.mark.runs
def test_the_first_run_passes_and_a_feed_of_another_size_and_mix_is_noticed(parity_csv, warehouse, tmp_path):
    other = tmp_path / "other.csv"
    lines = parity_csv.read_text().splitlines()
    other.write_text("\n".join([lines[0], *(line for line in lines if line.endswith("click"))]) + "\n")
    with DagsterInstance.local_temp() as instance:
        said = []
        for feed in (parity_csv, parity_csv, other):
            result = run_graph(feed, warehouse, selection=THROUGH_EVENTS, instance=instance)
            assert result.success
            said.append({each.check_name: each for each in result.get_asset_check_evaluations()})

    first, second, third = said
    assert "no earlier run is known" in first["volume_is_as_usual"].description
    assert "+0.0% against 560, the median of the last 1 runs" in second["volume_is_as_usual"].description
    assert all(each.passed for each in [*first.values(), *second.values()])
    assert {name for name, each in third.items() if not each.passed} == {
        *("volume_is_as_usual", "event_mix_is_as_usual")
    }
    assert "160 events, -71.4% against 560" in third["volume_is_as_usual"].description
    assert "71.4% of the events changed their kind" in third["event_mix_is_as_usual"].description
    assert third["volume_is_as_usual"].severity is AssetCheckSeverity.WARN


def test_who_is_new_is_asked_of_the_release_and_needs_no_history(own_warehouse):
    known = own_warehouse.open_tables("bm25_matrix")
    newcomers = [str(number) for number in range(1000, 1100)]
    of_items = {**known, "items": dataset(ProductCode=[*newcomers, "00001"])}
    results, _ = counted(matrix.claims_of_bm25_matrix, own_warehouse, of_items)

    assert results["new_users_are_as_usual"].passed
    assert "0 of 40 users (0.0%) are unknown" in results["new_users_are_as_usual"].description
    assert not results["new_items_are_as_usual"].passed
    assert "100 of 101 items (99.0%) are unknown" in results["new_items_are_as_usual"].description


def test_a_lower_map_than_usual_is_noticed_if_it_is_of_the_same_protocol(monkeypatch, shared_warehouse):
    tables_of = shared_warehouse.read_tables("evaluation")
    figure = tables_of["models"]["map"][0].as_py()
    protocol = "random, k 10"
    for past, passed in (
        ([], True),
        ([{"MAP": figure, "protocol": protocol}], True),
        ([{"MAP": 2 * figure, "protocol": protocol}], False),
        ([{"MAP": 2 * figure, "protocol": "last, k 10"}], True),
    ):
        monkeypatch.setattr(evaluation, "past_figures", lambda *_, past=past: past)
        results, stopped = counted(evaluation.claims_of_evaluation, None, tables_of)
        assert results["map_is_as_usual"].passed == passed
        assert not stopped


# --- What a false claim does ---


def test_what_follows_a_false_claim_is_not_made_and_the_run_says_why(parity_csv, own_warehouse):
    strange = pa.table({"UserID": [1, None], "ProductCode": ["a", "b"], "Event": ["view", "view"]})
    before = own_warehouse.write_id("feedback_strengths")
    own_warehouse.write_tables("raw_feedback", {"raw_feedback": strange})
    selection = AssetSelection.checks_for_assets("raw_feedback") | alone("feedback_strengths")
    result = run_graph(parity_csv, own_warehouse, selection=selection)

    assert failure_of(result) == (
        "raw_feedback: ids_are_complete does not hold: 2 events: 1 without a user, 0 without an item. "
        "What follows is not made, and readers keep what they have."
    )
    assert set(failed_checks_of(result)) == {"ids_are_complete"}
    assert own_warehouse.write_id("feedback_strengths") == before


def test_a_claim_can_be_asked_for_by_itself(parity_csv, own_warehouse):
    one = AssetCheckKey(AssetKey("raw_feedback"), "ids_are_complete")
    result = run_graph(parity_csv, own_warehouse, selection=AssetSelection.checks(one))

    assert result.success
    assert [each.check_name for each in result.get_asset_check_evaluations()] == ["ids_are_complete"]
