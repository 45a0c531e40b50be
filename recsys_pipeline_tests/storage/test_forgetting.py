"""Users who are to be forgotten: whose rows go, and what keeps them from coming back by mistake."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.feeds.read import files_beside_the_feed, files_of_feed
from recsys_pipeline.storage.forgetting import WITHHELD, read_forgotten
from recsys_pipeline.storage.held_out import read_held_out
from recsys_pipeline.storage.ingest import ingest

ROWS = ["73,a,view", "0073,b,view", "9,a,view", "73,b,click"]


@pytest.fixture
def run(tmp_path, warehouse):
    """Ingests rows without those of the users whom a file names."""

    def made(rows, forgotten, header="UserID,ProductCode,Event", **config):
        (tmp_path / "feed.csv").write_text("\n".join([header, *rows]) + "\n")
        if forgotten is not None:
            (tmp_path / "forget.csv").write_text("\n".join(["UserID", *forgotten]) + "\n")
            config["forget_users"] = str(tmp_path / "forget.csv")
        feedback = Feedback(path=str(tmp_path / "feed.csv"), **{"max_rejected_share": 0.9, **config})
        return ingest(feedback, warehouse, "raw_feedback", "rejected_feedback")

    return made


@pytest.fixture
def users_left(run, warehouse):
    def left(*arguments, **config):
        run(*arguments, **config)
        return warehouse.read_table("raw_feedback")["UserID"].to_pylist()

    return left


def test_their_events_are_left_out_and_counted(run, warehouse):
    report = run(ROWS, ["73", "nobody"])

    assert warehouse.read_table("raw_feedback")["UserID"].to_pylist() == ["0073", "9"]
    told = {"listed": 2, "users": 1, "events": 2, "not in the feed": 1}
    assert report.forgotten == told
    assert stored_metadata(warehouse.read_table("raw_feedback"))["feed"]["forgotten"] == told
    assert (report.n_accepted, report.n_rejected) == (2, 0)


@pytest.mark.parametrize(
    ("forgotten", "left"), [("0073", ["73", "9", "73"]), ("73", ["0073", "9"]), (" 73 ", ["0073", "9"])]
)
def test_an_id_is_the_text_that_it_is_in_the_feed(users_left, forgotten, left):
    assert users_left([*ROWS, "007,a,view"], [forgotten]) == [*left, "007"]


def test_among_integers_zeros_name_nobody(users_left):
    assert users_left(["73,a,view", "9,a,view"], ["0073"]) == [73, 9]


def test_a_parquet_file_names_integers(users_left, tmp_path):
    path = str(tmp_path / "forget.parquet")
    pq.write_table(pa.table({"UserID": [73]}), path)

    assert users_left(["73,a,view", "9,a,view"], None, forget_users=path) == [9]


def test_rejected_rows_do_not_name_them(run, warehouse):
    rows = [
        *("9,a,view", "gone,a,refund", "a,b,gone", " gone,,view", "8,gone,view,extra", "8,a,view,extra"),
        "8,'gone',view,extra",
    ]
    run(rows, ["gone"])
    rejected = warehouse.read_table("rejected_feedback").to_pylist()

    assert [row["content"] for row in rejected] == [WITHHELD, "8,a,view,extra", WITHHELD]
    # The lines are still those of the file.
    assert [row["line"] for row in rejected] == [6, 7, 8]


def test_lines_are_searched_for_ids_that_a_separator_would_cut(run, warehouse):
    run(["9,a,view", "8,the gone one,view,extra"], ["the gone one"])

    assert warehouse.read_table("rejected_feedback")["content"].to_pylist() == [WITHHELD]


def test_what_was_there_before_goes_at_once(run, warehouse):
    run(["9,a,view", "73,a,view"], None)
    run(["9,a,view", "73,a,view"], ["73"])

    for table in ("raw_feedback", "rejected_feedback"):
        states = [path for path in (warehouse.root / ".tables" / table).iterdir() if len(path.name) == 32]
        assert [path.name for path in states] == [warehouse.write_id(table)]


def test_a_file_that_names_nobody_or_is_missing_lets_nobody_back_in(run, tmp_path):
    with pytest.raises(InputError, match=r"names nobody, only a header\. Was the export cut short"):
        run(ROWS, [])
    with pytest.raises(InputError, match=r"none\.csv does not exist. Set RECSYS_FORGET_USERS"):
        run(ROWS, None, forget_users=str(tmp_path / "none.csv"))
    with pytest.raises(InputError, match="line 3 has a blank UserID"):
        run(ROWS, ["73", "null"])


@pytest.mark.parametrize("fewer", [["73"], None])
def test_a_file_that_has_become_shorter_is_refused_unless_that_is_meant(run, users_left, fewer):
    run(ROWS, ["73", "9"])

    with pytest.raises(InputError, match="to be forgotten, 2 in the last run: the others would come back"):
        run(ROWS, fewer)
    assert "9" in users_left(ROWS, fewer, forget_fewer=True)


def test_a_feed_of_nobody_else_says_so(run):
    with pytest.raises(InputError, match="all its rows are of users who are to be forgotten"):
        run(["73,a,view"], ["73"])


def test_held_out_interactions_of_a_file_are_without_them(tmp_path):
    (tmp_path / "held.csv").write_text("UserID,ProductCode\n73,a\n9,a\n")
    (tmp_path / "forget.csv").write_text("UserID\n73\n")
    feedback = Feedback(forget_users=str(tmp_path / "forget.csv"))

    held_out = read_held_out(str(tmp_path / "held.csv"), feedback, pa.int64(), pa.string())
    assert held_out["UserID"].to_pylist() == [9]


def test_the_events_depend_on_the_file(tmp_path):
    (tmp_path / "forget.csv").write_text("UserID\n73\n")
    (tmp_path / "feed.csv").write_text("UserID\n73\n")
    feedback = Feedback(path=str(tmp_path / "feed.csv"), forget_users=str(tmp_path / "forget.csv"))

    assert [file.name for file in files_beside_the_feed(feedback)] == ["forget.csv"]
    assert [file.name for file in files_of_feed(feedback)] == ["feed.csv"]
    assert files_beside_the_feed(Feedback()) == []
    assert len(read_forgotten(Feedback()).ids) == 0
