"""A user who is to be forgotten is nowhere in the warehouse after the run, nor is there a way back."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from dagster import AssetKey, AssetSelection, DagsterInstance

from recsys_pipeline import settings
from recsys_pipeline.command_line import main
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.storage.releases import read_pointer
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.worlds import SMALL_GRID, alone, failure_of, metadata_of, publish_model, run_graph

# Unlike anything else, and long enough for the statistics of Parquet to be cut.
GONE = "user-who-asked-to-be-forgotten-8f3c1e"
# Their neighbour, for the walk to show that it sees what is there.
STAYS = "user-who-stays-with-the-shop-17d2aa"
OPS = {
    "grid_search_results": {"config": {**SMALL_GRID, "regularization": [0.01], "iterations": [3]}},
    "baselines": {"config": {"families": ["popularity"], "workers": 1}},
    "evaluation": {"config": {"compare_with": [], "seeds": 1, "workers": 1}},
    "release": {"config": {"must_beat_popularity": False}},
}


def contents_of(path):
    """What a file says, tables decompressed, as bytes."""
    raw = path.read_bytes()
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            return raw + repr(file.read().to_pydict()).encode() + repr(file.metadata.metadata).encode()
    if path.suffix == ".arrow":
        with pa.ipc.open_file(path) as file:
            return raw + repr(file.read_all().to_pydict()).encode()
    return raw


def files_that_name(user, folder):
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and user.encode() in contents_of(path)
    ]


@pytest.fixture(scope="module")
def forgotten(tmp_path_factory):
    """A shop before and after: what each run says, and the warehouse after the second."""
    folder = tmp_path_factory.mktemp("forgetting")
    lines = ["UserID,ProductCode,Event"]
    for user in range(24):
        name = {0: GONE, 1: STAYS}.get(user, f"u{user}")
        lines += [f"{name},item{(user * 5 + place) % 30},view" for place in range(6 + 10 * (user < 2))]
    lines += [f"{GONE},item1,refund", f"{GONE},item1,view,extra", f"{STAYS},item1,refund"]
    (folder / "feed.csv").write_text("\n".join(lines) + "\n")
    (folder / "forget.csv").write_text(f"UserID\n{GONE}\nsomebody-else\n")
    (folder / "home").mkdir()
    warehouse = Warehouse(path=str(folder / "warehouse"))
    with DagsterInstance.local_temp(str(folder / "home")) as instance:

        def run(**options):
            return run_graph(
                folder / "feed.csv",
                warehouse,
                **{"ops": OPS, "selection": AssetSelection.all(), "max_rejected_share": 0.5, **options},
                instance=instance,
            )

        before = run()
        assert before.success
        named_before = files_that_name(GONE, folder / "warehouse")
        version_before = read_pointer(warehouse.root).version
        forget = str(folder / "forget.csv")
        # Of assets that were made before somebody asked to be forgotten, no release is made any more.
        stale = run(forget_users=forget, selection=alone("release"), ops={"release": OPS["release"]})
        after = run(forget_users=forget)
        assert after.success
        yield folder, warehouse, before, stale, after, named_before, version_before


def test_no_file_of_the_warehouse_names_them(forgotten):
    folder, _, _, _, _, named_before, _ = forgotten

    assert {path.split("/")[0] for path in named_before} == {".tables", "releases"}
    assert len({path.split("/")[1] for path in named_before if path.startswith(".tables")}) > 5
    assert files_that_name(STAYS, folder / "warehouse")
    assert files_that_name(GONE, folder / "warehouse") == []


def test_the_history_of_runs_names_nobody(forgotten):
    folder = forgotten[0]

    assert files_that_name(GONE, folder / "home") == []
    assert files_that_name(STAYS, folder / "home") == []
    card = metadata_of(forgotten[2], "model_card")["card"]
    assert re.search(r"### User \W*5\W*: 1[0-9] interactions", card)


def test_the_run_says_what_it_removed(forgotten):
    _, warehouse, _, _, after, _, version_before = forgotten
    told = metadata_of(after, "raw_feedback")

    assert told["forgotten: users"] == 1
    assert told["forgotten: events"] == 17
    assert told["forgotten: not in the feed"] == 1
    assert metadata_of(after, "release")["removed releases"] == version_before
    assert read_pointer(warehouse.root).published == [read_pointer(warehouse.root).version]
    assert AssetKey("release") in {event.asset_key for event in after.get_asset_materialization_events()}
    shown = CliRunner().invoke(main, ["--warehouse", str(warehouse.root), "releases", "show"])
    assert "17 events of 1 users were left out" in shown.output


def test_a_model_that_still_has_them_is_not_released(forgotten):
    assert "best_model has 1 users who are to be forgotten since" in failure_of(forgotten[3])


def test_there_is_no_rolling_back_to_a_release_that_has_them(tmp_path, warehouse, monkeypatch):
    factors = Factors(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32))
    rows, items = [[0], [1]], ["a", "b"]
    with_them, others, current = (
        publish_model(warehouse.root, rows, factors, users, items).name
        for users in ([GONE, "x"], ["x", "y"], ["x", "z"])
    )
    (tmp_path / "forget.csv").write_text(f"UserID\n{GONE}\n")
    monkeypatch.setattr(settings, "FORGET_USERS", str(tmp_path / "forget.csv"))
    rollback = ["--warehouse", str(warehouse.root), "releases", "rollback"]

    refused = CliRunner().invoke(main, [*rollback, with_them])
    assert refused.exit_code == 1
    assert f"{with_them} has users who are to be forgotten (RECSYS_FORGET_USERS)" in refused.output
    assert read_pointer(warehouse.root).version == current
    assert CliRunner().invoke(main, [*rollback, others]).exit_code == 0
