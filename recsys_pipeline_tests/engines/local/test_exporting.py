"""The lists of everybody: in order, as made one user at a time, under the rules of the shop."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from recsys_pipeline.core.blending import Blend, terms_of
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.item_graph import GraphFilter
from recsys_pipeline.core.offer import ByFactors, Offer, Popularity, make_lists
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.engines.engine import ExportPlan
from recsys_pipeline.engines.local import exporting
from recsys_pipeline.engines.local.engine import LocalEngine
from recsys_pipeline_tests.worlds import model_of

N_USERS, N_ITEMS = 50, 30
GRAPH = GraphFilter(0.5, 0.5, strengths={"view": 1.0})
BLEND = {"als": 0.5, "events": {"view": 1.0}, "target": 0.25, "any": 0.0}


@pytest.fixture
def model(rng):
    """Small integers as factors, so that products are exact; user 7 and item 3 are unknown to the model."""
    users, items = (rng.integers(-2, 3, (n, 3)).astype(np.float32) for n in (N_USERS, N_ITEMS))
    users[7], items[3] = 0, 0
    rows = [sorted(rng.choice(N_ITEMS, 6, replace=False).tolist()) for _ in range(N_USERS)]
    codes = [f"00{item:02d}" for item in range(N_ITEMS)]
    return model_of(rows, Factors(users, items), list(range(100, 100 + N_USERS)), codes, blend=BLEND)


@pytest.fixture
def offer():
    """Items 0 to 4 are not offered; three categories, three items each at most."""
    allowed = np.arange(N_ITEMS) > 4
    return Offer(allowed, (np.arange(N_ITEMS) % 4 - 1).astype(np.int32), 3)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    monkeypatch.setattr(exporting, "_LISTS_PER_BLOCK", 4)
    monkeypatch.setattr(exporting, "_ROWS_AT_ONCE", 64)
    monkeypatch.setattr(exporting, "usable_cores", lambda: 3)


def expected_rows(model, offer, source, by, n):
    """The rows of each user, who is listed alone."""
    popularity = Popularity.of(model.target_users, N_USERS, offer)
    for user in range(N_USERS):
        made = make_lists(by, np.array([user], np.int32), model.exclusions, n, offer, popularity)
        for place in range(made.lengths[0]):
            yield {
                "UserID": 100 + user,
                "rank": place + 1,
                "ProductCode": f"00{made.items[0, place]:02d}",
                "score": made.scores[0, place],
                "source": source if place < made.n_of_model[0] else "popular",
            }


@pytest.mark.parametrize("source", ["als", "blend"])
@pytest.mark.parametrize("n", [1, 12])
def test_recommendations_are_those_of_one_user_after_the_other(model, offer, source, n):
    plan = ExportPlan(n, blend=source == "blend")
    table = LocalEngine().recommendations(model, offer, plan).read_all()

    by = ByFactors.of(model.factors, offer)
    if plan.blend:
        by = terms_of(model.factors, model.history, None, None).scorer(Blend.from_mapping(BLEND))
    expected = list(expected_rows(model, offer, source, by, n))
    columns = ["UserID", "rank", "ProductCode", "source"]
    assert table.select(columns).to_pylist() == [{name: row[name] for name in columns} for row in expected]
    assert table["score"].to_numpy() == pytest.approx([row["score"] for row in expected], abs=1e-5)


def test_the_number_of_threads_changes_nothing(model, offer, monkeypatch):
    tables = []
    for cores in (1, 3):
        monkeypatch.setattr(exporting, "usable_cores", lambda cores=cores: cores)
        tables.append(LocalEngine().recommendations(model, offer, ExportPlan(12)).read_all())

    assert tables[0].equals(tables[1])


def test_who_is_unknown_to_the_model_gets_popular_items(model, offer):
    table = LocalEngine().recommendations(model, offer, ExportPlan(5)).read_all().to_pandas()

    of_unknown = table[table["UserID"] == 107]
    assert len(of_unknown) == 5
    assert set(of_unknown["source"]) == {"popular"}
    touched_by = np.bincount(model.contents.pattern.indices, minlength=N_ITEMS)
    shares = [touched_by[int(code)] / N_USERS for code in of_unknown["ProductCode"]]
    assert of_unknown["score"].to_numpy() == pytest.approx(shares)
    assert shares == sorted(shares, reverse=True)


def with_graph(model):
    """The same with an item graph as a term of its blend; user 9 has nothing in it."""
    pattern = model.contents.pattern
    counts = model.contents.counts["view"].copy()
    counts[pattern.user_of_interaction == 9] = 0
    contents = model.contents._replace(counts={"view": counts})
    blend = {**BLEND, "graph": 2.0, "filter": GRAPH.as_dict(), "scales": {"graph": 0.5}}
    return replace(
        model, contents=contents, manifest={**model.manifest, "blend": blend, "graph": GRAPH.as_dict()}
    )


@pytest.mark.parametrize("n", [1, 12])
def test_a_blend_with_an_item_graph_lists_for_everybody_as_for_one(model, offer, n):
    """Also for somebody of whom the graph knows nothing."""
    model = with_graph(model)
    table = LocalEngine().recommendations(model, offer, ExportPlan(n, blend=True)).read_all()

    rows = model.graph_rows(model.blend)
    by = terms_of(model.factors, model.history, GRAPH, rows).scorer(model.blend)
    expected = list(expected_rows(model, offer, "blend", by, n))
    assert table["ProductCode"].to_pylist() == [row["ProductCode"] for row in expected]
    assert table["score"].to_numpy() == pytest.approx([row["score"] for row in expected], abs=1e-5)


def test_similar_items_by_the_graph_are_its_strongest_neighbours(model, offer):
    """The weight of an edge is an entry of R~' R~; an item that shares no user with another has no list."""
    model = with_graph(model)
    table = LocalEngine().similar_items(model, offer, ExportPlan(6, graph=True)).read_all().to_pandas()

    entries = model.contents.graph_rows(GRAPH, model.aggregate).toarray().astype(float)
    degrees = [entries.sum(axis=axis, keepdims=True) for axis in (0, 1)]
    steps = entries / np.sqrt(degrees[0].clip(1) * degrees[1].clip(1))
    edges = steps.T @ steps
    np.fill_diagonal(edges, 0)
    assert set(table["ProductCode"]) == {
        code for item, code in enumerate(model.items.to_pylist()) if (edges[item][offer.allowed] > 0).any()
    }
    for code, rows in table.groupby("ProductCode"):
        item, listed = int(code), [int(other) for other in rows["SimilarProductCode"]]
        assert rows["score"].to_numpy() == pytest.approx(edges[item][listed], rel=1e-5)
        assert rows["score"].is_monotonic_decreasing
        assert (rows["score"] > 0).all()
        free = [i for i in range(N_ITEMS) if offer.allowed[i] and offer.category[i] < 0]
        missed = set(free) - set(listed) - {item}
        assert len(rows) < 6 or not any(edges[item][i] > rows["score"].min() + 1e-6 for i in missed)


def test_similar_items_by_a_graph_that_there_is_not_say_how_to_get_one(model, offer):
    with pytest.raises(InputError, match=r"has no item graph\. Materialize grid_search_results again"):
        LocalEngine().similar_items(model, offer, ExportPlan(6, graph=True))


def test_a_model_without_a_blend_says_how_to_get_one(model, offer):
    model.manifest["blend"] = None

    with pytest.raises(InputError, match="Set `blend` of grid_search_results to true"):
        LocalEngine().recommendations(model, offer, ExportPlan(5, blend=True))


def test_similar_items_are_others_on_offer_by_cosine(model, offer):
    """Every item that has factors has a list, also one that is not on offer."""
    table = LocalEngine().similar_items(model, offer, ExportPlan(6)).read_all().to_pandas()

    items = model.factors.items
    lengths = np.linalg.norm(items, axis=1)
    assert table["ProductCode"].unique().tolist() == [
        code for item, code in enumerate(model.items.to_pylist()) if lengths[item]
    ]
    for code, rows in table.groupby("ProductCode"):
        item, listed = int(code), [int(other) for other in rows["SimilarProductCode"]]
        assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
        cosines = items @ items[item] / (lengths * lengths[item]).clip(1e-9)
        assert rows["score"].to_numpy() == pytest.approx(cosines[listed], abs=1e-6)
        candidates = [
            i
            for i in range(N_ITEMS)
            if i != item and offer.allowed[i] and lengths[i] and offer.category[i] < 0
        ]
        # Without a category there is no limit: whoever is better than the last is listed.
        missed = set(candidates) - set(listed)
        assert not any(cosines[i] > rows["score"].min() + 1e-6 for i in missed)
        assert item not in listed
        assert all(offer.allowed[listed] & (lengths[listed] > 0))
    assert table["score"].between(-1, 1).all()


@pytest.mark.parametrize("export", ["recommendations", "similar_items"])
def test_a_model_that_diverged_is_not_exported(model, offer, export):
    model.factors.items[0, 0] = np.inf

    with pytest.raises(FloatingPointError, match="diverged"):
        getattr(LocalEngine(), export)(model, offer, ExportPlan(5))


def test_whoever_stops_reading_ends_the_threads(model, offer, monkeypatch):
    monkeypatch.setattr(exporting, "_ROWS_AT_ONCE", 4)
    before = threading.active_count()
    stream = LocalEngine().recommendations(model, offer, ExportPlan(5))
    stream.read_next_batch()
    assert threading.active_count() > before
    del stream

    assert threading.active_count() == before


def test_no_more_threads_than_memory_allows(model, offer):
    limit = 2 * exporting._BYTES_PER_THREAD / 1e9
    before = threading.active_count()
    stream = LocalEngine().recommendations(model, offer, ExportPlan(5, memory_limit=limit))
    stream.read_next_batch()

    assert threading.active_count() - before <= 2
