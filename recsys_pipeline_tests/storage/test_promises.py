"""A release folder that keeps its promises, and each promise broken alone."""

import re
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_pipeline.core.catalogue import Entries, Listed, catalogue_table, offer_in
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.exports import popular_items_of
from recsys_pipeline.core.factors import factor_table
from recsys_pipeline.core.item_graph import GraphFilter
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.core.offer import Popularity
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.engines.engine import ExportPlan
from recsys_pipeline.engines.local.engine import LocalEngine
from recsys_pipeline.storage import promises
from recsys_pipeline.storage.mapped import write_mappable
from recsys_pipeline.storage.promises import broken_promises
from recsys_pipeline.storage.tables import write_table
from recsys_pipeline_tests.worlds import model_of

N_USERS, N_ITEMS, N = 30, 40, 6
CODES = [f"0{item:02d}" for item in range(N_ITEMS)]


@pytest.fixture
def model(rng):
    """User 3 is unknown to the model; each has bought one of six items."""
    users, items = (rng.normal(size=(n, 3)).astype(np.float32) for n in (N_USERS, N_ITEMS))
    users[3] = 0
    rows = [sorted(rng.choice(N_ITEMS, 6, replace=False).tolist()) for _ in range(N_USERS)]
    bought = [[row[0]] for row in rows]
    return model_of(rows, Factors(users, items), list(range(100, 100 + N_USERS)), CODES, bought=bought)


def write_release(folder, model, max_per_category=2, n=N):
    """Items 0 to 4 are not available; every third item is of no category, the others are of four."""
    categories = [None if item % 3 == 0 else f"c{item % 4}" for item in range(N_ITEMS)]
    entries = Entries(Listed(model.items, 0), np.arange(N_ITEMS) > 4, pa.array(categories, pa.string()))
    catalogue = catalogue_table(model.items, entries, None, None, max_per_category)
    offer, plan = offer_in(catalogue), ExportPlan(n)
    said = {"n": n, "target_events": ["buy"]}
    popularity = Popularity.of(model.target_users, N_USERS, offer)
    tables = {
        "catalogue": catalogue,
        "recommendations": LocalEngine().recommendations(model, offer, plan).read_all(),
        "similar_items": LocalEngine().similar_items(model, offer, plan).read_all(),
        "popular_items": popular_items_of(popularity, offer, model.items, n),
    }
    for name, table in tables.items():
        if name != "catalogue":
            table = with_metadata(table, said)
        write_table(table, folder / f"{name}.parquet")
    interactions = {
        "user_index": model.contents.pattern.user_of_interaction,
        "item_index": model.contents.pattern.indices,
        "excluded": model.contents.excluded,
        **{f"count_{event}": counts for event, counts in model.contents.counts.items()},
    }
    arrow = {
        "user_factors": factor_table("UserID", model.users, model.factors.users),
        "item_factors": factor_table("ProductCode", model.items, model.factors.items),
        "user_items": pa.table(interactions),
    }
    for name, table in arrow.items():
        with (folder / f"{name}.arrow").open("wb") as file:
            write_mappable(table, file)
    return folder


@pytest.fixture
def release(tmp_path, model):
    return write_release(tmp_path, model)


def change(release, name, how):
    """Write a table again, its rows as `how` leaves them."""
    file = release / f"{name}.parquet"
    table = pq.read_table(file)
    rows = table.to_pylist()
    changed = how(rows)
    rows = rows if changed is None else changed
    write_table(pa.Table.from_pylist(rows, schema=table.schema), file)


@pytest.mark.parametrize("n", [1, N, N_ITEMS])
@pytest.mark.parametrize("max_per_category", [0, 1, 2])
def test_a_good_release_keeps_every_promise(tmp_path, model, max_per_category, n):
    """Also where there are fewer items than the lists are long."""
    assert broken_promises(write_release(tmp_path, model, max_per_category, n)) == []


@pytest.mark.parametrize("max_per_category", [0, 2])
def test_items_of_which_the_model_knows_nothing_have_and_are_no_similar_ones(
    tmp_path, model, max_per_category
):
    model.factors.items[8:12] = 0
    model.factors.items[20:] = 0

    assert broken_promises(write_release(tmp_path, model, max_per_category, N_ITEMS)) == []


def by_graph(folder, model, n=N):
    """The release of a shop whose similar items are the neighbours in the item graph."""
    graph = GraphFilter(0.5, 0.5, strengths={"view": 1.0}).as_dict()
    write_release(folder, model, n=n)
    model = replace(model, manifest={**model.manifest, "graph": graph})
    offer = offer_in(pq.read_table(folder / "catalogue.parquet"))
    table = LocalEngine().similar_items(model, offer, ExportPlan(n, graph=True)).read_all()
    write_table(with_metadata(table, {"n": n, "scorer": "graph"}), folder / "similar_items.parquet")
    return folder


@pytest.mark.parametrize("n", [N, N_ITEMS])
def test_neighbours_in_the_item_graph_are_similar_items_however_many_there_are(tmp_path, model, n):
    assert broken_promises(by_graph(tmp_path, model, n)) == []


def test_but_not_without_an_edge(tmp_path, model):
    change(by_graph(tmp_path, model), "similar_items", lambda rows: rows[N - 1].update(score=0.0))

    (told,) = broken_promises(tmp_path)
    assert told.startswith("similar_items: 1 rows have a score that is no weight of an edge")


def test_an_item_of_the_users_own_is_excluded(release, model):
    own = CODES[next(int(item) for item in model.contents.pattern.indices[:6] if item > 4)]

    def recommend_it(rows):
        rows[0]["ProductCode"] = own

    change(release, "recommendations", recommend_it)
    told = [each for each in broken_promises(release) if "excluded" in each]
    assert told == [
        "recommendations: 1 rows recommend an item that is excluded for the user, such as UserID 100, "
        f"{own!r}"
    ]


def set_first(**values):
    def change_first(rows):
        rows[0].update(values)

    return change_first


def repeat_an_item(rows):
    listed = "SimilarProductCode" if "SimilarProductCode" in rows[0] else "ProductCode"
    rows[1][listed] = rows[0][listed]


def swap_two_users(rows):
    return [row for row in rows if row["UserID"] == 101] + [row for row in rows if row["UserID"] != 101]


def split_a_list(rows):
    return [*rows[1:], rows[0]]


def popular_first(rows):
    rows[0]["source"] = "popular"


def without_user(user):
    def drop(rows):
        return [row for row in rows if row["UserID"] != user]

    return drop


def without_last_of_the_unknown(rows):
    place = max(place for place, row in enumerate(rows) if row["UserID"] == 103)
    return rows[:place] + rows[place + 1 :]


def similar_to_itself(rows):
    rows[0]["SimilarProductCode"] = rows[0]["ProductCode"]


def one_category(rows):
    for row in rows:
        row["category"] = "all"


def no_reason(rows):
    rows[0]["reason"] = ""


def one_item_less(rows):
    return rows[:-1]


def nothing(_):
    return []


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("recommendations", repeat_an_item, "items are more than once in a list, such as UserID 100, '0"),
        ("recommendations", set_first(rank=2), "rows have another rank than the next of their list"),
        ("recommendations", set_first(rank=None), "rows have another rank than the next of their list"),
        (
            "recommendations",
            set_first(score=float("-inf")),
            "score that is not finite, such as UserID 100, rank 1",
        ),
        ("recommendations", set_first(score=float("nan")), "score that is not finite"),
        ("recommendations", set_first(score=None), "score that is not finite"),
        (
            "recommendations",
            set_first(score=-float(np.finfo(np.float32).max)),
            "score that stands for none, such as UserID 100, rank 1",
        ),
        ("recommendations", set_first(score=-100.0), "rows have a higher score than the row before"),
        (
            "recommendations",
            set_first(source="someone"),
            "rows have no known source, such as UserID 100, rank 1",
        ),
        ("recommendations", set_first(source=None), "rows have no known source"),
        ("recommendations", set_first(source="blend"), "come after popular items or another model's"),
        (
            "recommendations",
            popular_first,
            "come after popular items or another model's, such as UserID 100, rank 2",
        ),
        ("recommendations", set_first(ProductCode="001"), "rows list an item that is not recommendable"),
        (
            "recommendations",
            set_first(ProductCode="new"),
            "rows list no ProductCode of the model, such as UserID",
        ),
        ("recommendations", set_first(ProductCode=None), "rows list no ProductCode of the model"),
        (
            "recommendations",
            set_first(UserID=99),
            "rows are of no UserID of the model, such as UserID 99, '0",
        ),
        (
            "recommendations",
            swap_two_users,
            "rows are not in the order of UserID, such as UserID 100, rank 1",
        ),
        ("recommendations", split_a_list, "rows are not in the order of UserID, such as UserID 100, rank 1"),
        (
            "recommendations",
            without_user(103),
            "1 lists have fewer than 6 items although .* UserID 103, 0 items",
        ),
        (
            "recommendations",
            without_last_of_the_unknown,
            "fewer than 6 items although .* UserID 103, 5 items",
        ),
        ("catalogue", one_category, "recommendations: .* lists have more than 2 items of a category"),
        ("catalogue", one_category, "similar_items: .* lists have more than 2 items of a category"),
        ("catalogue", one_category, "popular_items: .* lists have more than 2 items of a category"),
        ("catalogue", no_reason, "catalogue: 1 items have a reason although they are recommendable, or none"),
        ("catalogue", one_item_less, "catalogue: it does not have the 40 items of the model in their order"),
        (
            "similar_items",
            similar_to_itself,
            "1 items are similar to themselves, such as ProductCode '000', rank 1",
        ),
        ("similar_items", set_first(score=1.5), "rows have a score that is no cosine"),
        (
            "similar_items",
            repeat_an_item,
            "items are more than once in a list, such as ProductCode '000', '0",
        ),
        (
            "similar_items",
            set_first(SimilarProductCode="001"),
            "not recommendable, such as ProductCode '000', '001'",
        ),
        (
            "similar_items",
            one_item_less,
            "1 lists have fewer than 6 items although others are left, such as ProductCode '039', 5 items",
        ),
        ("similar_items", nothing, "40 lists have fewer than 6 items although others are left"),
        (
            "popular_items",
            set_first(rank=3),
            "rows have another rank than the next of their list, .* as rank 3",
        ),
        ("popular_items", repeat_an_item, "items are more than once in a list, such as '0"),
        (
            "popular_items",
            set_first(ProductCode="001"),
            "rows list an item that is not recommendable, such as '001'",
        ),
        ("popular_items", one_item_less, "lists have fewer than 6 items although popular ones are left"),
    ],
)
def test_each_broken_promise_is_found(release, name, how, message):
    change(release, name, how)
    found = broken_promises(release)

    assert [told for told in found if re.search(message, told)], found


def test_a_list_that_is_too_long(release):
    file = release / "recommendations.parquet"
    write_table(with_metadata(pq.read_table(file), {"n": N - 1, "target_events": ["buy"]}), file)

    (told,) = broken_promises(release)
    assert told == f"recommendations: {N_USERS} rows are beyond rank 5, such as UserID 100, rank 6"


def test_a_table_that_cannot_be_read_is_named(release):
    (release / "similar_items.parquet").write_bytes(b"PAR1 and no more")
    (release / "popular_items.parquet").unlink()

    similar, popular = broken_promises(release)
    assert similar.startswith("similar_items: cannot be read: ")
    assert popular.startswith("popular_items: cannot be read: ")


def test_a_table_of_other_columns_is_none(release):
    write_table(pa.table({"rank": [1]}), release / "popular_items.parquet")

    (told,) = broken_promises(release)
    assert told == "popular_items: its columns are not rank (int32), ProductCode (string), score (float)"


def test_a_table_that_does_not_say_how_long_its_lists_are(release):
    file = release / "similar_items.parquet"
    write_table(pq.read_table(file).replace_schema_metadata(None), file)

    assert broken_promises(release) == ["similar_items: it does not say how long its lists may be"]


def test_a_table_that_does_not_say_what_makes_an_item_popular(release):
    file = release / "popular_items.parquet"
    write_table(with_metadata(pq.read_table(file), {"n": N}), file)

    assert broken_promises(release) == ["popular_items: it does not say which events make an item popular"]


def test_a_model_that_cannot_be_read_is_all_there_is_to_say(release):
    (release / "user_items.arrow").write_bytes(b"ARROW1 and no more")

    (told,) = broken_promises(release)
    assert told.startswith("model: cannot be read: ")


def test_too_little_memory_is_no_broken_promise(release):
    with pytest.raises(InputError, match=r"takes more than .* Raise the memory limit"):
        broken_promises(release, most_bytes=10**6)


@pytest.mark.parametrize(
    "error",
    [duckdb.IOException("No space left on device"), duckdb.OutOfMemoryException("max_temp_directory_size")],
)
def test_nor_is_a_full_disk(release, tmp_path, monkeypatch, error):
    def fail(*_):
        raise error
        yield

    monkeypatch.setattr(promises._Reader, "_row_by_row", fail)
    with pytest.raises(OSError, match="No space left") as raised:
        broken_promises(release, scratch=tmp_path)
    assert raised.value.filename == str(tmp_path)
