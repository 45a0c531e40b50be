"""Training reads a window of days, and may let old events fade; both count from the latest event."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from recsys_pipeline.core.columns import EVENT, ITEM, STRENGTH, TIMESTAMP, USER
from recsys_pipeline.core.contents import contents_of
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.folding import Events, FoldIn
from recsys_pipeline.core.hyperparameters import NO_WEIGHTING, Hyperparameters, draw
from recsys_pipeline.core.interactions import Fading, Interactions
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.model import Model
from recsys_pipeline.core.neighbourhood import Neighbourhood
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.core.results import Winner
from recsys_pipeline.core.strengths import Aggregate, EventRules
from recsys_pipeline.engines.local.aggregation import interaction_strengths, window_of
from recsys_pipeline.rebuilding import rebuild
from recsys_pipeline.storage.journal import Journal
from recsys_pipeline.storage.releases import current_release, read_manifest
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.core.small_feeds import shop_events, split_of
from recsys_pipeline_tests.worlds import SMALL_GRID, TUNED_ALONE, failure_of, metadata_of, run_graph

LATEST = datetime(2026, 1, 31, 12, tzinfo=UTC)
SHOP = {"view": 1.0, "buy": 3.0}
# User, item, event, age in days.
AGED = [
    (1, 5, "view", 0.0),
    (1, 5, "view", 7.0),
    (1, 5, "buy", 14.0),
    (1, 6, "view", 3.5),
    (2, 5, "view", 21.0),
    (2, 7, "view", 9000.0),
]


def dataset(events, folder=None):
    """Of events with ages; a Parquet file, or in memory."""
    users, items, names, ages = zip(*events, strict=True)
    times = pa.array([LATEST - timedelta(days=age) for age in ages], pa.timestamp("us", tz="UTC"))
    table = pa.table({USER: users, ITEM: items, EVENT: names, TIMESTAMP: times})
    if folder is None:
        return ds.dataset(table)
    pq.write_table(table, folder / "events.parquet")
    return ds.dataset(folder / "events.parquet")


def aged_interactions(events=AGED, half_lives=(7.0,), aggregate=Aggregate.sum, seen_events=("buy",)):
    rules = EventRules(SHOP, aggregate, ["buy"], list(seen_events), half_lives=half_lives)
    table = interaction_strengths(dataset(events), *rules).read_all()
    return Interactions.from_strengths(with_metadata(table, rules.to_metadata()))


# --- The window ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["memory", "Parquet"])
def test_only_events_of_the_window_count(where, tmp_path):
    events = dataset(AGED, tmp_path if where == "Parquet" else None)
    table = interaction_strengths(events, SHOP, window_days=14).read_all()
    whole = interaction_strengths(events, SHOP).read_all()

    # The event that is 14 days old to the microsecond is out.
    assert table.select([USER, ITEM, STRENGTH]).to_pylist() == [
        {USER: 1, ITEM: 5, STRENGTH: 2.0},
        {USER: 1, ITEM: 6, STRENGTH: 1.0},
    ]
    assert whole.num_rows == 4
    assert window_of(events, 14)[2:] == (3, 3)


def test_a_window_or_a_half_life_without_times_is_refused():
    events = dataset(AGED).to_table(columns=[USER, ITEM, EVENT])

    with pytest.raises(InputError, match=r"^window_days of feedback_strengths needs times"):
        interaction_strengths(ds.dataset(events), SHOP, window_days=1)
    with pytest.raises(InputError, match=r"^half_lives of feedback_strengths needs times"):
        interaction_strengths(ds.dataset(events), SHOP, half_lives=[7])


# --- Fading --------------------------------------------------------------------------------------


def test_each_event_fades_by_its_own_age():
    """In sum 2 ** (-age / 7) of each, times its strength; nothing fades away altogether."""
    interactions = aged_interactions()
    half, oldest = 0.5**0.5, 2.0**-40

    np.testing.assert_allclose(interactions.strengths_by(None, 7.0), [1.5 + 3 * 0.25, half, 0.125, oldest])
    np.testing.assert_allclose(
        interactions.strengths_by({"view": 2.0}, 7.0), [3.0, 2 * half, 0.25, 2 * oldest]
    )
    np.testing.assert_array_equal(interactions.strengths_by(None), [5.0, 1.0, 1.0, 1.0])


def test_of_the_greatest_event_the_faded_strength_counts():
    interactions = aged_interactions(aggregate=Aggregate.max)

    np.testing.assert_allclose(interactions.strengths_by(None, 7.0)[:2], [1.0, 0.5**0.5])


def test_what_is_held_out_leaves_its_other_events_faded():
    interactions = aged_interactions()
    held_out = split_of(interactions, [0], keep_other_events=True)
    mappings, half_lives = Fading.of({"default": None}, [7.0])
    (split,) = interactions.splits(held_out, mappings, weigh_all=False, half_lives=half_lives)
    # Of three items each user has two: BM25 would weigh everything by 0.
    trial = Hyperparameters(4, 0.01, 1.0, 3, 1.0, 0.5, weighting=NO_WEIGHTING, half_life_days=7.0)

    assert split.training_strengths["default"][0] == 2.0
    assert split.training_strengths[trial.strengths_name][0] == 1.5
    assert not np.array_equal(split.weights(trial), split.weights(trial.replace(half_life_days=0.0)))


def test_a_half_life_that_the_strengths_lack_is_named():
    with pytest.raises(
        InputError, match=r"^half_life_days 30 is not among the half_lives .*, which are 7: add"
    ):
        aged_interactions().strengths_by(None, 30.0)


def test_only_the_half_lives_of_the_list_are_tried():
    lists = SMALL_GRID | {"half_life_days": [0.0, 7.0, 30.0]}
    drawn = {trial.half_life_days for trial in draw(30, 1, lists)}
    start = Hyperparameters(4, 0.01, 10.0, 3, 100.0, 0.8)
    around = Neighbourhood.around(start, lists, steps_beyond=2)

    assert drawn == {0.0, 7.0, 30.0}
    assert {trial.half_life_days for trial in around.first_round()} == {0.0, 7.0, 30.0}


def test_trials_are_journalled_by_the_strengths_that_they_had(tmp_path):
    """Those without fading under the names that they had before there was any."""
    trial = Hyperparameters(4, 0.01, 10.0, 3, 100.0, 0.8)
    faded = trial.replace(half_life_days=7.0)
    content = {"default": "a", faded.strengths_name: "b"}
    journal = Journal(
        Warehouse(path=str(tmp_path)).root, content, "batched", 1, "training", k=10, strengths={}
    )

    assert journal._entry_name(trial) == "a6f916640764a44fd247e9d3e6c5af7d.json"
    assert journal._entry_name(faded) != journal._entry_name(trial)


# --- In the graph --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faded(tmp_path_factory):
    """A shop of 40 days, of which the last 20 count and fade by a week."""
    folder = tmp_path_factory.mktemp("faded")
    lines = []
    for n, (user, item, event) in enumerate(shop_events()):
        lines.append(f"{user},{item},{event},{(LATEST - timedelta(hours=n % 960)).isoformat()}")
    (folder / "shop.csv").write_text("\n".join(["UserID,ProductCode,Event,Timestamp", *lines]) + "\n")
    warehouse = Warehouse(path=str(folder / "warehouse"))
    ops = {
        **TUNED_ALONE,
        "feedback_strengths": {"config": {"window_days": 20, "half_lives": [7]}},
        "grid_search_results": {"config": {**SMALL_GRID, "half_life_days": [7]}},
    }
    result = run_graph(folder / "shop.csv", warehouse, ops=ops, evaluate=True, strengths=SHOP)
    assert result.success, failure_of(result)
    return result, warehouse


@pytest.mark.runs
def test_the_page_says_what_the_window_left_out(faded):
    result, _ = faded
    metadata = metadata_of(result, "feedback_strengths")

    assert metadata["events in the window"] + metadata["events left out"] == len(shop_events())
    assert "older ones are left out" in metadata["window"]


@pytest.mark.runs
def test_the_release_says_how_its_events_faded_and_can_be_rebuilt(faded, tmp_path):
    release = current_release(faded[1].root)
    manifest = read_manifest(release)
    rebuilt = rebuild(release, tmp_path, None, lambda _: None)

    assert manifest["hyperparameters"]["half_life_days"] == 7.0
    assert manifest["rules"]["window_days"] == 20
    assert manifest["rules"]["half_lives"] == [7.0]
    assert rebuilt.identical


@pytest.mark.parametrize("aggregate", Aggregate)
def test_somebody_known_keeps_what_is_left_of_the_old_events(aggregate):
    """With nothing new the weights are those of the training; what is new counts in full."""
    interactions = aged_interactions([*AGED, (3, 8, "view", 1.0)], aggregate=aggregate)
    trial = Hyperparameters(2, 0.01, 1.0, 3, 1.0, 0.5, weighting=NO_WEIGHTING, half_life_days=7.0)
    contents = contents_of(interactions, Winner(trial, 1, "batched", None, {}, None))
    n_items = len(interactions.items)
    manifest = {
        "hyperparameters": trial.as_dict(),
        "strengths": SHOP,
        "seen_events": ["buy"],
        "rules": interactions.rules.to_metadata(),
    }
    factors = Factors(np.ones((3, 2), np.float32), np.ones((n_items, 2), np.float32))
    fold_in = FoldIn(Model(interactions.users, interactions.items, factors, contents, manifest))
    before = contents.of(np.arange(3, dtype=np.int32))
    nothing = np.empty(0, dtype=np.int64)

    same = fold_in.contents(Events(nothing, nothing, nothing), before)
    np.testing.assert_allclose(same.weights, contents.weights)
    one = np.zeros(1, dtype=np.int64)
    views = one + fold_in.events.index("view")
    again = fold_in.contents(Events(one, one + 1, views), before)
    # The first user's item 6, of which 0.5 ** 0.5 of a view was left, is viewed once more.
    expected = 1.0 + 0.5**0.5 if aggregate is Aggregate.sum else 1.0
    np.testing.assert_allclose(again.weights[1], expected, rtol=1e-6)
    np.testing.assert_allclose(np.delete(again.weights, 1), np.delete(contents.weights, 1))
