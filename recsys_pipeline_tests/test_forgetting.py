"""A user who is to be forgotten is nowhere in the warehouse after the run, nor is there a way back."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from dagster import AssetSelection, DagsterInstance, ExecuteInProcessResult

from recsys_pipeline import settings
from recsys_pipeline.command_line import main
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.storage.forgetting import Forgotten as ToForget
from recsys_pipeline.storage.forgetting import releases_that_hold
from recsys_pipeline.storage.releases import read_pointer
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.worlds import (
    SMALL_GRID,
    TUNED_ALONE,
    failure_of,
    metadata_of,
    publish_model,
    run_graph,
)

# Unlike anything else, and long enough for the statistics of Parquet to be cut.
GONE = "user-who-asked-to-be-forgotten-8f3c1e"
# Their neighbour, for the walk to show that it sees what is there.
STAYS = "user-who-stays-with-the-shop-17d2aa"
UP_TO_THE_SPLIT = ["raw_feedback", "feedback_strengths", "bm25_matrix", "leave_one_out_split"]
OPS = {
    **TUNED_ALONE,
    "grid_search_results": {
        "config": {**SMALL_GRID, "regularization": [0.01], "iterations": [3], "compare_with_implicit": False}
    },
    "release": {"config": {"must_beat_popularity": False}},
}


class Forgotten(NamedTuple):
    """A shop, in which somebody was forgotten.

    `named_before` are the files that named them, `released_before` is the release that had them.
    """

    folder: Path
    warehouse: Warehouse
    after: ExecuteInProcessResult
    stale: ExecuteInProcessResult
    named_before: list[str]
    released_before: str


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
    factors = Factors(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32))
    released_before = publish_model(warehouse.root, [[0], [1]], factors, [GONE, STAYS], ["a", "b"]).name
    with DagsterInstance.local_temp(str(folder / "home")) as instance:

        def run(selection, **options):
            of_selected = {name: OPS[name] for name in OPS if not selection or name in selection}
            return run_graph(
                folder / "feed.csv",
                warehouse,
                ops=of_selected,
                selection=AssetSelection.assets(*selection) if selection else AssetSelection.all(),
                instance=instance,
                max_rejected_share=0.5,
                **options,
            )

        assert run(UP_TO_THE_SPLIT).success
        named_before = files_that_name(GONE, folder / "warehouse")
        after = run(None, forget_users=str(folder / "forget.csv"))
        assert after.success
        (folder / "forget.csv").write_text(f"UserID\n{GONE}\nsomebody-else\n{STAYS}\n")
        # Of assets that were made before somebody asked to be forgotten.
        stale = run(["release"], forget_users=str(folder / "forget.csv"))
    return Forgotten(folder, warehouse, after, stale, named_before, released_before)


@pytest.mark.forgetting
def test_no_file_of_the_warehouse_names_them(forgotten):
    before = {"/".join(path.split("/")[:2]) for path in forgotten.named_before}

    assert before == {
        f"releases/{forgotten.released_before}",
        *(f".tables/{name}" for name in ("best_model", "rejected_feedback", *UP_TO_THE_SPLIT)),
    }
    assert files_that_name(STAYS, forgotten.folder / "warehouse")
    assert files_that_name(GONE, forgotten.folder / "warehouse") == []


@pytest.mark.forgetting
def test_the_history_of_runs_names_nobody(forgotten):
    for user in (GONE, STAYS):
        assert files_that_name(user, forgotten.folder / "home") == []
    card = metadata_of(forgotten.after, "model_card")["card"]
    # Of so few users two of the five examples are the same.
    assert re.findall("### User (.):", card.replace("`", "")) == ["1", "2", "3", "4"]


@pytest.mark.forgetting
def test_the_run_says_what_it_removed(forgotten):
    told = metadata_of(forgotten.after, "raw_feedback")

    assert told["Forgotten: users"] == 1
    assert told["Forgotten: events"] == 17
    assert told["Forgotten: not in the feed"] == 1
    assert metadata_of(forgotten.after, "release")["removed releases"] == forgotten.released_before
    pointer = read_pointer(forgotten.warehouse.root)
    assert (pointer.published, pointer.previous) == ([pointer.version], None)
    where = ["--warehouse", str(forgotten.warehouse.root)]
    shown = CliRunner().invoke(main, [*where, "releases", "show"])
    assert "17 events of 1 users were left out" in shown.output


@pytest.mark.forgetting
def test_a_model_that_still_has_them_is_not_released(forgotten):
    assert "best_model has 1 users who are to be forgotten since" in failure_of(forgotten.stale)


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


def test_where_the_pointer_is_damaged_every_release_is_looked_at(warehouse):
    factors = Factors(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32))
    with_them, _ = (
        publish_model(warehouse.root, [[0], [1]], factors, users, ["a", "b"]).name
        for users in ([GONE, "x"], ["x", "y"])
    )
    (warehouse.root / "releases" / "current.json").write_text("?")

    assert releases_that_hold(warehouse.root, ToForget(pa.array([GONE]))) == [with_them]
