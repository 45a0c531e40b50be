"""`recsys`: what people and programs are told of the releases, and the way back."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from recsys_pipeline import load_model
from recsys_pipeline.command_line import main
from recsys_pipeline.reporting.tables import text_table
from recsys_pipeline.storage.releases import current_release, read_pointer
from recsys_pipeline_tests.conftest import PROJECT
from recsys_pipeline_tests.worlds import SMALL_GRID, TUNED_ALONE, alone, run_graph, write_parity_feedback


def recsys(warehouse, *arguments):
    """Status, what it prints and what it complains of."""
    done = CliRunner().invoke(main, ["--warehouse", str(warehouse.root), *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def as_json(warehouse, *arguments):
    status, printed, _ = recsys(warehouse, *arguments, "--json")
    assert status in (0, 1)
    return json.loads(printed)


@pytest.fixture
def two_releases(parity_csv, own_warehouse):
    assert run_graph(parity_csv, own_warehouse, selection=alone("release")).success
    return own_warehouse


def versions(warehouse):
    return read_pointer(warehouse.root).published


# --- Looking ---


def test_releases_are_listed_newest_first_with_how_good_they_are(two_releases):
    _, printed, _ = recsys(two_releases, "releases", "list")
    header, newest, oldest = printed.splitlines()

    assert header.split() == ["version", "created", "MAP@10", "users", "items", "hyperparameters"]
    assert newest.startswith(f"current  {versions(two_releases)[1]}")
    assert oldest.startswith(f"before   {versions(two_releases)[0]}")
    tuned = two_releases.read_table("evaluation", "models").to_pylist()[0]
    assert f"{tuned['map']:.4f}" in newest
    assert "factors 4, regularization 0.01" in newest


def test_and_for_programs(two_releases):
    told = as_json(two_releases, "releases", "list")

    assert told["current"] == versions(two_releases)[1]
    assert told["hold"] is None
    assert [row["version"] for row in told["releases"]] == versions(two_releases)[::-1]
    assert {row["users"] for row in told["releases"]} == {40}


def test_a_release_whose_manifest_is_damaged_is_listed_with_its_problem(two_releases):
    first = two_releases.root / "releases" / versions(two_releases)[0]
    (first / "manifest.json").write_text("{")

    assert "is not the manifest that was published" in recsys(two_releases, "releases", "list")[1]


def test_a_release_says_why_it_was_released(shared_warehouse):
    _, printed, _ = recsys(shared_warehouse, "releases", "show")

    assert f"version           {versions(shared_warehouse)[0]}" in printed
    assert "verdict           the tuned model (" in printed
    assert "released because" in printed
    assert "better than popularity: MAP@10" in printed
    manifest = load_model(shared_warehouse.root).manifest
    assert as_json(shared_warehouse, "releases", "show") == manifest


def test_an_earlier_release_can_be_shown_too(two_releases):
    first = versions(two_releases)[0]

    assert as_json(two_releases, "releases", "show", first)["version"] == first


@pytest.mark.parametrize("command", ["show", "verify", "rebuild", "rollback"])
def test_a_release_that_is_not_there_is_named_with_those_that_are(two_releases, command):
    status, _, complaint = recsys(two_releases, "releases", command, "20200101T000000000000Z")

    assert status == 1
    assert "holds no release '20200101T000000000000Z'; there are: 2" in complaint
    assert complaint.count("\n") == 1


def test_a_whole_release_is_verified(shared_warehouse):
    status, printed, _ = recsys(shared_warehouse, "releases", "verify")

    assert status == 0
    assert "files and the manifest are what was published" in printed
    assert as_json(shared_warehouse, "releases", "verify")["whole"]


def test_a_changed_file_is_named_and_ends_with_status_1(own_warehouse):
    file = current_release(own_warehouse.root).path / "item_factors.arrow"
    file.write_bytes(file.read_bytes()[:-1])
    status, _, complaint = recsys(own_warehouse, "releases", "verify")

    assert status == 1
    assert "item_factors.arrow is not the file that was published" in complaint
    told = as_json(own_warehouse, "releases", "verify")
    assert not told["whole"]
    assert len(told["problems"]) == 1


# --- Trials ---


def test_trials_of_earlier_searches_over_the_same_data_are_shown_beside_the_last(parity_csv, own_warehouse):
    before = as_json(own_warehouse, "trials")["trials"]
    assert before
    assert all(row["in_last_table"] for row in before)
    ops = {"grid_search_results": {"config": {**SMALL_GRID, "weights": "all"}}}
    assert run_graph(parity_csv, own_warehouse, ops=ops, selection=alone("grid_search_results")).success
    after = as_json(own_warehouse, "trials")["trials"]

    assert {row["weights"] for row in before} == {"training"}
    assert len(after) == 2 * len(before)
    assert {row["weights"] for row in after if row["in_last_table"]} == {"all"}
    figures = [row["scores"]["map"] for row in after]
    assert figures == sorted(figures, reverse=True)
    header, *lines = recsys(own_warehouse, "trials")[1].splitlines()
    assert header.split() == ["MAP@10", "+-", "weights", "solver", "seed", "k", "hyperparameters"]
    assert sum(line.startswith("last table") for line in lines) == len(before)


def test_before_the_first_search_there_are_no_trials_which_is_no_error(warehouse):
    status, printed, _ = recsys(warehouse, "trials")

    assert (status, printed) == (
        0,
        "No search has finished yet: materialize the asset grid_search_results.\n",
    )
    assert as_json(warehouse, "trials") == {"selected_by": None, "trials": []}


@pytest.mark.runs
def test_a_mapping_that_was_defined_anew_is_not_taken_for_what_it_was(parity_csv, own_warehouse):
    for strength in (2.0, 5.0):
        mappings = {"strength_mappings": {"clicks": {"view": 1.0, "click": strength}}}
        ops = {"grid_search_results": {"config": {**SMALL_GRID, "iterations": [3], **mappings}}}
        assert run_graph(parity_csv, own_warehouse, ops=ops, selection=alone("grid_search_results")).success
    rows = as_json(own_warehouse, "trials")["trials"]
    of_clicks = [row for row in rows if row["hyperparameters"]["strengths"] == "clicks"]
    lines = recsys(own_warehouse, "trials")[1].splitlines()

    assert len(of_clicks) == 2 * 2
    assert {(row["strengths"]["click"], row["in_last_table"]) for row in of_clicks} == {
        (2.0, False),
        (5.0, True),
    }
    (told,) = {line.rsplit("strengths ", 1)[1] for line in lines if "click 2" in line}
    assert told == "clicks (clicks: click 2, view 1)"


# --- Back ---


def test_a_rollback_is_seen_by_readers_at_once_and_holds_new_releases(two_releases, parity_csv):
    first, second = versions(two_releases)
    status, printed, _ = recsys(two_releases, "releases", "rollback", "--reason", "lists are stale")

    assert status == 0
    assert printed.startswith(f"readers get {first} now\nnew releases are held since ")
    assert load_model(two_releases.root).manifest["version"] == first
    assert as_json(two_releases, "releases", "list")["hold"]["rolled_back_from"] == second
    assert not run_graph(parity_csv, two_releases, selection=alone("release")).success

    may_release = f"the next run may release again; readers get {first}\n"
    assert recsys(two_releases, "releases", "resume")[:2] == (0, may_release)
    nothing_held = f"nothing was held back; readers get {first}\n"
    assert recsys(two_releases, "releases", "resume")[:2] == (0, nothing_held)
    assert run_graph(parity_csv, two_releases, selection=alone("release")).success


@pytest.mark.runs
def test_the_notebooks_file_follows(own_warehouse, tmp_path):
    """The second release has another model."""
    feed = write_parity_feedback(tmp_path / "more.csv", n_users=80)
    assert run_graph(feed, own_warehouse, ops=TUNED_ALONE, evaluate=True).success
    pickled = own_warehouse.root / "releases" / "implicit_recommender_model.pkl"
    second = pickled.read_bytes()
    recsys(own_warehouse, "releases", "rollback")
    assert pickled.read_bytes() != second

    recsys(own_warehouse, "releases", "rollback")
    assert pickled.read_bytes() == second


# --- Rebuilt ---


def test_a_release_is_rebuilt_from_the_same_feed_byte_by_byte(materialized_graph):
    feed = materialized_graph.warehouse.root.parent / "feedback.csv"
    told = as_json(materialized_graph.warehouse, "releases", "rebuild", "--feedback", str(feed))

    assert told["identical"]
    assert told["same_input"]
    assert {"user_factors.arrow", "item_factors.arrow", "user_items.arrow"} <= set(told["files"])


def test_from_another_feed_it_is_not_and_says_so(own_warehouse, tmp_path):
    feed = write_parity_feedback(tmp_path / "other.csv", n_users=30)
    status, printed, told = recsys(
        own_warehouse, "releases", "rebuild", "--feedback", str(feed), "--keep", str(tmp_path / "kept")
    )

    assert status == 1
    assert "the feed is another one than the release was made from" in told
    assert printed.split()[:2] == ["user_factors.arrow", "differs"]
    assert (tmp_path / "kept" / "model" / "item_factors.arrow").exists()


# --- Asking ---


def test_a_user_gets_what_the_package_recommends(shared_warehouse):
    listed = load_model(shared_warehouse.root).recommend(7, 3)
    rows = as_json(shared_warehouse, "recommend", "7", "-n", "3")

    assert [row["item"] for row in rows] == listed["item"].tolist()
    assert rows == as_json(shared_warehouse, "recommend", "7", "-n", "3", "--no-blend")
    _, printed, _ = recsys(shared_warehouse, "recommend", "7", "-n", "3")
    assert printed.split()[:2] == ["item", "score"]
    assert len(printed.splitlines()) == 4


def test_an_item_gets_what_is_similar(shared_warehouse):
    rows = as_json(shared_warehouse, "similar", "00007", "-n", "2")

    assert len(rows) == 2
    assert all(row["item"] != "00007" for row in rows)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["recommend", "4711"], "Error: the model knows no user 4711; its 40 user ids are integers\n"),
        (["recommend", "x"], "Error: 'x' is no integer, and the ids of this release are.\n"),
        (["similar", "7"], "Error: the model knows no item '7'; its 60 item ids are strings\n"),
        (["recommend", "7", "--blend"], "Error: this model has no blend: set `blend`"),
    ],
)
def test_what_the_release_does_not_know_ends_in_a_sentence(shared_warehouse, arguments, complaint):
    status, printed, told = recsys(shared_warehouse, *arguments)

    assert (status, printed) == (1, "")
    assert told.startswith(complaint)


def test_so_does_a_warehouse_without_a_release(warehouse):
    status, _, told = recsys(warehouse, "releases", "list")

    assert status == 1
    assert "Materialize the asset release first" in told


def test_a_secret_in_the_warehouse_is_refused_and_not_shown():
    done = CliRunner().invoke(main, ["--warehouse", "s3://key:hunter2@bucket/w", "releases", "list"])

    assert done.exit_code == 2
    assert "hunter2" not in done.output


# --- Help ---


COMMANDS = [
    [],
    ["releases"],
    ["recommend"],
    ["similar"],
    ["deliver"],
    ["trials"],
    *(["releases", name] for name in ("list", "show", "verify", "rollback", "resume", "rebuild")),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command):
    done = CliRunner().invoke(main, [*command, "--help"])

    assert done.exit_code == 0
    assert done.output.splitlines()[2].strip()
    assert "..." not in done.output.replace("[ARGS]...", "")


@pytest.mark.parametrize(
    ("command", "shown"), [(["releases", "list"], "current"), (["trials"], "last table")], ids=str
)
def test_looking_loads_neither_dagster_nor_pandas_nor_implicit(shared_warehouse, command, shown):
    program = ["-m", "recsys_pipeline.command_line", "--warehouse", shared_warehouse.path]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *program, *command],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}

    assert shown in done.stdout
    assert not loaded & {"dagster", "implicit", "matplotlib", "numba", "pandas", "scipy"}


def test_the_command_is_installed():
    assert (Path(sys.executable).parent / "recsys").exists()


# --- Tables ---


def test_a_table_is_aligned_numbers_to_the_right():
    table = text_table(["name", "count"], [["a", "1,000"], ["longer", "7"]])

    assert table.splitlines() == ["name    count", "a       1,000", "longer      7"]


def test_a_table_without_a_header_is_its_rows():
    assert text_table(None, [["a", "b"]]) == "a  b"
    assert text_table(None, []) == ""
