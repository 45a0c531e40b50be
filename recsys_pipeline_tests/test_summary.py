"""`python -m recsys_pipeline`: a few lines on the released model, for a terminal."""

import os
import subprocess
import sys

import numpy as np
import pytest
from dagster import AssetSelection
from upath import UPath

from recsys_pipeline import __main__ as command
from recsys_pipeline import load_model, settings
from recsys_pipeline.core.ranking import Factors
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.worlds import SMALL_GRID, TUNED_ALONE, publish_model, run_graph


@pytest.fixture
def summarized(monkeypatch, capsys):
    """What the command prints of a warehouse, its errors, and its exit status."""

    def summarize(warehouse):
        monkeypatch.setattr(settings, "WAREHOUSE", warehouse.path)
        status = command.main()
        return *capsys.readouterr(), status

    return summarize


def test_the_summary_says_how_good_the_model_is_and_where(summarized, shared_warehouse):
    manifest = load_model(shared_warehouse.root).manifest
    printed, errors, status = summarized(shared_warehouse)
    lines = {line[:17].strip(): line[17:] for line in printed.splitlines()}

    assert (errors, status) == ("", 0)
    tuned = shared_warehouse.read_table("evaluation", "models").to_pylist()[0]
    assert lines["on unseen data"] == (
        f"MAP@10 {tuned['map']:.4f}, 95 % interval {tuned['map_low']:.4f} to {tuned['map_high']:.4f}"
    )
    assert lines["verdict"].startswith("the tuned model (")
    assert lines["in the search"].startswith(f"MAP@10 {manifest['metrics']['MAP@10']:.4f} +- ")
    assert lines["hyperparameters"] == (
        f"factors 4, regularization 0.01, alpha 10, iterations {manifest['hyperparameters']['iterations']}, "
        "bm25_K1 100, bm25_B 0.8"
    )
    assert "regularization 0.01" in lines["at the ends"]
    assert lines["at the ends"].endswith(" the smallest tried: widen these lists, or set preset quick")
    assert lines["trained on"] == "400 interactions of 40 users and 60 items"
    assert lines["release"].endswith(manifest["version"])
    assert lines["artefacts"] == shared_warehouse.path


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({}, "http://127.0.0.1:3000"),
        ({"RECSYS_UI_PORT": "4711"}, "http://127.0.0.1:4711"),
        ({"RECSYS_UI_HOST": "0.0.0.0", "RECSYS_UI_PORT": ""}, "http://127.0.0.1:3000"),
        ({"RECSYS_UI_HOST": "shop.example"}, "http://shop.example:3000"),
    ],
)
def test_the_summary_names_the_ui_where_make_dev_serves_it(
    summarized, shared_warehouse, monkeypatch, told, shown
):
    for name in ("RECSYS_UI_HOST", "RECSYS_UI_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)

    assert f"make dev, then open {shown}\n" in summarized(shared_warehouse)[0]


def test_it_explains_itself(capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])

    assert ended.value.code == 0
    assert "RECSYS_WAREHOUSE" in capsys.readouterr().out


def test_the_summary_loads_nothing_that_it_does_not_use(shared_warehouse):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "recsys_pipeline"],
        env={**os.environ, "RECSYS_WAREHOUSE": shared_warehouse.path},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}

    assert "on unseen data   MAP@10" in done.stdout
    assert "pyarrow" in loaded
    assert not loaded & {"dagster", "implicit", "matplotlib", "numba", "pandas", "scipy"}


def test_of_a_model_without_scores_it_says_what_to_do(summarized, tmp_path):
    publish_model(UPath(tmp_path), [[0]], Factors(np.ones((1, 2)), np.ones((2, 2))), [1], ["a", "b"])
    _, errors, status = summarized(Warehouse(path=str(tmp_path)))

    assert errors.endswith("has no MAP@10: materialize the assets again.\n")
    assert status == 1


@pytest.mark.runs
def test_of_a_model_without_bm25_it_shows_no_k1(summarized, parity_csv, warehouse):
    search = {**SMALL_GRID, "weighting": ["none"], "iterations": [3], "regularization": [0.1]}
    ops = {
        **TUNED_ALONE,
        "grid_search_results": {"config": search},
        "release": {"config": {"must_beat_popularity": False}},
    }
    assert run_graph(parity_csv, warehouse, ops=ops, evaluate=True).success
    printed, _, _ = summarized(warehouse)

    (line,) = [line for line in printed.splitlines() if line.startswith("hyperparameters")]
    assert line.split(maxsplit=1)[1] == (
        "factors 4, regularization 0.1, alpha 10, iterations 3, weighting none"
    )


@pytest.mark.runs
def test_an_evaluation_that_came_after_the_model_says_nothing_of_it(summarized, parity_csv, own_warehouse):
    ops = {"grid_search_results": {"config": {**SMALL_GRID, "alpha": [10.0, 20.0]}}}
    selection = AssetSelection.assets("grid_search_results", "evaluation")
    assert run_graph(parity_csv, own_warehouse, ops=ops, selection=selection).success

    assert "on unseen data   not evaluated yet" in summarized(own_warehouse)[0]


def test_a_search_that_came_after_the_model_says_nothing_of_it(summarized, parity_csv, own_warehouse):
    ops = {"grid_search_results": {"config": {**SMALL_GRID, "alpha": [10.0, 20.0]}}}
    selection = AssetSelection.assets("grid_search_results")
    assert run_graph(parity_csv, own_warehouse, ops=ops, selection=selection).success

    assert "at the ends" not in summarized(own_warehouse)[0]


def test_of_an_empty_warehouse_it_says_what_to_do(summarized, warehouse):
    printed, errors, status = summarized(warehouse)

    assert (printed, status) == ("", 1)
    assert "Materialize the asset release first" in errors


def test_a_reader_that_has_seen_enough_is_no_error(shared_warehouse):
    """As `head` does; here the reader is gone before the first line, whatever the timing."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "recsys_pipeline"],
        env={**os.environ, "RECSYS_WAREHOUSE": shared_warehouse.path},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)

    assert (done.returncode, done.stderr) == (0, "")
