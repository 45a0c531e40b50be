"""The shop's own rules as an asset: what may be recommended, in what the lists hold."""

import shutil

import pytest
from dagster import AssetSelection
from pydantic import ValidationError

from recsys_pipeline.assets.catalogue import CatalogueConfig
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.storage.promises import broken_promises
from recsys_pipeline_tests.worlds import N_ITEMS, failure_of, item_code, metadata_of, run_graph

TABLES = ("catalogue", "recommendations", "similar_items", "popular_items")
THE_LISTS = AssetSelection.assets(*TABLES)


def written(folder, name, *lines):
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def put_together(warehouse, folder):
    """The files of model and tables in one folder, as a release has them."""
    folder.mkdir()
    for asset in ("best_model", *TABLES):
        for name, file in warehouse.files_of(asset, warehouse.write_id(asset)).items():
            shutil.copy(str(file), folder / name)
    return folder


@pytest.fixture
def run(parity_csv, own_warehouse):
    """Make catalogue and lists from the model that is there."""

    def run_with(selection=THE_LISTS, **catalogue):
        ops = {"catalogue": {"config": catalogue}}
        return run_graph(parity_csv, own_warehouse, selection=selection, ops=ops)

    return run_with


def test_without_a_catalogue_everything_may_be_recommended(shared_warehouse, shared_result):
    table = shared_warehouse.read_table("catalogue")

    assert table["ProductCode"].to_pylist() == [item_code(item) for item in range(N_ITEMS)]
    assert set(table["recommendable"].to_pylist()) == {True}
    assert stored_metadata(table)["max_per_category"] == 0
    metadata = metadata_of(shared_result, "catalogue")
    assert (metadata["Recommendable items"], metadata["Other items"]) == (N_ITEMS, 0)


def test_no_list_holds_what_the_shop_does_not_offer_nor_too_much_of_a_category(run, own_warehouse, tmp_path):
    """Items below 10 are sold out, those from 50 on are not in the catalogue, 20 is on the deny-list."""
    rows = [f"{item_code(item)},{'no' if item < 10 else 'yes'},c{item % 3}" for item in range(50)]
    path = written(tmp_path, "shop.csv", "ProductCode,available,category", *rows, "new,yes,c1")
    denied = written(tmp_path, "deny.csv", "ProductCode", item_code(20), "gone")
    result = run(path=path, max_per_category=3, deny_list=denied)

    assert result.success
    assert broken_promises(put_together(own_warehouse, tmp_path / "release")) == []
    offered = {item_code(item) for item in range(10, 50)} - {item_code(20)}
    category = {item_code(item): item % 3 for item in range(50)}
    for name, keys, listed in (
        ("recommendations", ["UserID"], "ProductCode"),
        ("similar_items", ["ProductCode"], "SimilarProductCode"),
        ("popular_items", [], "ProductCode"),
    ):
        table = own_warehouse.read_table(name).to_pandas()
        assert set(table[listed]) <= offered
        table["category"] = table[listed].map(category)
        assert table.groupby([*keys, "category"]).size().max() == 3
    metadata = metadata_of(result, "catalogue")
    assert (metadata["Recommendable items"], metadata["Other items"]) == (39, 21)
    assert metadata["Items of the catalogue that nobody touched"] == 1
    assert metadata["Items of the deny-list that nobody touched"] == 1
    assert metadata["Categories"] == 3
    assert metadata["reasons"].splitlines()[2:] == [
        "| not available | 10 |",
        "| not in the catalogue | 10 |",
        "| on the deny-list | 1 |",
    ]


def test_an_allow_list_is_all_there_is(run, own_warehouse, tmp_path):
    allowed = written(tmp_path, "allow.csv", "ProductCode", *(item_code(item) for item in range(4)))
    assert run(allow_list=allowed).success

    listed = own_warehouse.read_table("recommendations")["ProductCode"].unique().to_pylist()
    assert sorted(listed) == [item_code(item) for item in range(4)]


def test_if_nothing_is_left_the_ids_are_asked_about(run, tmp_path):
    path = written(tmp_path, "shop.csv", "ProductCode", "1", "2")
    failure = failure_of(run(AssetSelection.assets("catalogue"), path=path, max_per_category=2))

    assert failure == (
        "none of the 60 items of the model may be recommended (not in the catalogue: 60). Are the ids of "
        f"{path} those of the feedback?"
    )


def test_a_limit_without_categories_is_refused(run, tmp_path):
    path = written(tmp_path, "shop.csv", "ProductCode", *(item_code(item) for item in range(N_ITEMS)))

    failure = failure_of(run(AssetSelection.assets("catalogue"), path=path, max_per_category=2))
    assert failure.startswith(f"{path} gives no item of the model a category, and max_per_category is 2.")
    failure = failure_of(run(AssetSelection.assets("catalogue"), max_per_category=2))
    assert failure.startswith("max_per_category is 2 (RECSYS_MAX_PER_CATEGORY), but there is no catalogue.")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"max_per_category": -1}, "greater than or equal to 0"),
        ({"path": "s3://u:hunter2@bucket/shop.csv"}, "the URL holds a password or key"),
        ({"deny_list": "s3://u:hunter2@bucket/deny.csv"}, "the URL holds a password or key"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(config, message):
    with pytest.raises(ValidationError, match=message) as refused:
        CatalogueConfig(**config)
    assert "hunter2" not in str(refused.value)
