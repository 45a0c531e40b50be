"""The model card as an asset: a file for people, and the facts from which it can be rendered again."""

import json

import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from dagster import Failure, build_asset_context

from recsys_pipeline.assets.card import model_card
from recsys_pipeline.core.lineage import as_written
from recsys_pipeline.core.metadata import with_metadata
from recsys_pipeline.reporting.card import card, without_ids_of_users
from recsys_pipeline_tests.reporting.test_card import (
    FEED,
    evaluation,
    model,
    recommendations,
    search_results,
)
from recsys_pipeline_tests.worlds import N_ITEMS, N_USERS


def inputs(**changes):
    feedback = with_metadata(ds.InMemoryDataset(pa.table({"UserID": [1]})), {"feed": FEED})
    return {
        "raw_feedback": feedback,
        "grid_search_results": search_results(),
        "evaluation": evaluation(),
        "best_model": model(),
        "recommendations": ds.InMemoryDataset(recommendations()),
        **changes,
    }


def made(warehouse, **changes):
    """The metadata of a materialization."""
    return model_card(build_asset_context(), warehouse=warehouse, **inputs(**changes)).metadata


def written_facts(warehouse):
    return json.loads((warehouse.root / "model_card" / "model_card.json").read_text())["facts"]


def test_the_card_is_a_file_and_is_shown(warehouse):
    metadata = made(warehouse)
    text = (warehouse.root / "model_card" / "model_card.md").read_text()

    assert text.startswith("# Model card\n\n**On interactions that its search never saw, ")
    # But for the users, whom it numbers: Dagster keeps for ever what it is told.
    assert metadata["card"].md_str == card(without_ids_of_users(written_facts(warehouse)))
    assert metadata["where it is"].path.endswith("model_card/model_card.md")


def test_its_facts_lie_beside_it_and_give_the_same_card(warehouse):
    made(warehouse, grid_search_results=as_written(search_results(), "grid_search_results", "a" * 32))
    folder = warehouse.root / "model_card"
    written = json.loads((folder / "model_card.json").read_text())

    assert card(written["facts"]) == (folder / "model_card.md").read_text()
    assert written["ancestors"] == {"grid_search_results": "a" * 32}


def test_the_same_inputs_give_the_same_files(warehouse):
    made(warehouse)
    before = warehouse.write_id("model_card")
    made(warehouse)

    assert warehouse.write_id("model_card") == before


def test_in_the_graph_it_tells_of_this_run(shared_warehouse):
    read = shared_warehouse.read_card("model_card")
    facts = read.facts
    recommended = shared_warehouse.read_table("recommendations").to_pylist()

    assert read.text == card(facts)
    for asset in ("raw_feedback", "grid_search_results", "evaluation", "best_model", "recommendations"):
        assert read.lineage.ancestors[asset] == shared_warehouse.write_id(asset)
    assert facts["feed"]["rows"] == shared_warehouse.read_table("raw_feedback").num_rows
    assert facts["counts"] == {"users": N_USERS, "items": N_ITEMS, "interactions": 10 * N_USERS}
    assert facts["search"]["trials"] == 4
    assert len(facts["examples"]) == 4  # of 40 users the most active is the one at 99 % too
    for example in facts["examples"]:
        lists = [row for row in recommended if row["UserID"] == example["user"]]
        assert [each["item"] for each in example["gets"]] == [row["ProductCode"] for row in lists[:10]]
        # Everybody touches items of one parity.
        assert {int(each["item"]) % 2 for each in example["did"]} == {example["user"] % 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"raw_feedback": ds.InMemoryDataset(pa.table({"UserID": [1]}))},
            "raw_feedback does not say its feed",
        ),
        (
            {"grid_search_results": with_metadata(search_results(), {})},
            "grid_search_results does not say its",
        ),
        (
            {"evaluation": {name: with_metadata(each, {}) for name, each in evaluation().items()}},
            "evaluation does not say its out_of_reach",
        ),
    ],
)
def test_what_an_earlier_version_made_is_made_again_first(warehouse, changes, message):
    with pytest.raises(Failure, match=message):
        made(warehouse, **changes)
    assert not warehouse.has("model_card")
