"""Reading raw feedback: what is accepted, what is quarantined, what is refused."""

import errno
import gzip
import os

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from upath import UPath

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.metadata import stored_metadata
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.feeds import csv_rows, parquet_rows
from recsys_pipeline.storage.ingest import ingest

HEADER = "UserID,ProductCode,Event\n"
# Enough good rows that one bad row stays below the accepted share.
GOOD = "".join(f"{user},{user + 100},view\n" for user in range(200))


@pytest.fixture
def load(tmp_path, warehouse):
    """Write content to a file, ingest it, and give report, events and rejects."""

    def load(content, name="feedback.csv", **config):
        path = tmp_path / name
        if content is not None:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        feedback = Feedback(path=config.pop("path", str(path)), **config)
        report = ingest(feedback, warehouse, "raw_feedback", "rejected_feedback")
        events = warehouse.read_table("raw_feedback")
        assert events.num_rows == report.n_accepted
        return report, events, warehouse.read_table("rejected_feedback").to_pylist()

    return load


# --- What is read ---


def test_product_codes_keep_their_zeros_and_user_ids_stay_integers(load):
    _, events, _ = load(HEADER + "1,0073504200641,view\n2,4006381333931,click\n")

    assert events["UserID"].to_pylist() == [1, 2]
    assert events["ProductCode"].to_pylist() == ["0073504200641", "4006381333931"]
    assert events["Event"].to_pylist() == ["view", "click"]


def test_a_column_whose_last_row_is_the_first_that_is_no_integer(load, monkeypatch):
    monkeypatch.setattr(csv_rows, "_BLOCK_BYTES", 500)
    _, events, _ = load(HEADER + GOOD + "u200,300,view\n")

    assert events["UserID"].to_pylist() == [*map(str, range(200)), "u200"]
    assert events["ProductCode"].to_pylist() == list(range(100, 301))


@pytest.mark.parametrize("code", ["007", "+7", "9223372036854775808", " 7", "-0"])
def test_ids_come_out_as_they_went_in(load, code):
    _, events, _ = load(HEADER + f"1,{code},view\n2,5,view\n")

    assert events["ProductCode"].to_pylist() == [code, "5"]


def test_gzip_is_recognised_by_its_content(load):
    packed = gzip.compress((HEADER + GOOD).encode())

    assert load(packed, "feedback.csv.gz")[1].num_rows == 200
    assert load(packed, "feedback.csv")[1].num_rows == 200


def test_parquet_keeps_its_types(load, tmp_path):
    frame = pd.DataFrame({"UserID": ["1", "2"], "ProductCode": [7, 8], "Event": ["view", "view"]})
    frame["Event"] = frame["Event"].astype("category")
    frame.to_parquet(tmp_path / "feedback.parquet")
    _, events, _ = load(None, "feedback.parquet")

    assert events["UserID"].to_pylist() == ["1", "2"]
    assert events["ProductCode"].to_pylist() == [7, 8]


def test_a_folder_or_glob_of_files_is_one_feed(load, tmp_path):
    folder = tmp_path / "days"
    folder.mkdir()
    (folder / "b.csv").write_text(HEADER + "x,2,view\n")
    (folder / "a.csv.gz").write_bytes(gzip.compress((HEADER + "1,1,view\n").encode()))
    (folder / "_SUCCESS").write_text("")
    pq.write_table(pa.table({"UserID": [3], "ProductCode": [3], "Event": ["view"]}), folder / "c.parquet")

    report, events, _ = load(None, path=str(folder))
    assert events["UserID"].to_pylist() == ["1", "x", "3"]
    assert events["ProductCode"].to_pylist() == [1, 2, 3]
    assert len(report.files) == 3
    assert load(None, path=str(folder / "*.csv"))[1]["UserID"].to_pylist() == ["x"]


def test_an_object_store_is_as_good_as_a_disk(load):
    UPath("memory://feed/day.csv").write_text(HEADER + GOOD)

    assert load(None, path="memory://feed/day.csv")[1].num_rows == 200
    assert load(None, path="memory://feed")[1].num_rows == 200
    assert load(None, path="memory://feed/*.csv")[1].num_rows == 200


def test_columns_events_delimiter_and_encoding_are_configuration(load):
    text = "artikel;kunde;größe;art\n5;1;xl;Käufe\n6;2;m;Blick\n"
    _, events, _ = load(
        text.encode("latin-1"),
        user_column="kunde",
        item_column="artikel",
        event_column="art",
        delimiter=";",
        encoding="latin-1",
        strengths={"Käufe": 3.0, "Blick": 1.0},
    )

    assert events.to_pylist() == [
        {"UserID": 1, "ProductCode": 5, "Event": "Käufe"},
        {"UserID": 2, "ProductCode": 6, "Event": "Blick"},
    ]


def test_timestamps_are_read_where_there_are_some(load):
    _, events, _ = load("UserID,ProductCode,Event,Timestamp\n1,2,view,1430623510\n")
    _, named, _ = load("UserID,ProductCode,Event,at\n1,2,view,2015-05-03T03:25:10Z\n", timestamp_column="at")

    assert events["Timestamp"].to_pylist()[0].isoformat() == "2015-05-03T03:25:10+00:00"
    assert named["Timestamp"].equals(events["Timestamp"])


def test_a_byte_order_mark_and_windows_line_ends_are_no_trouble(load):
    text = "\ufeff" + (HEADER + "1,2,view\n").replace("\n", "\r\n")

    assert load(text)[1].to_pylist() == [{"UserID": 1, "ProductCode": 2, "Event": "view"}]


def test_ignored_events_are_left_out_and_counted(load):
    report, events, rejects = load(HEADER + GOOD + "1,1,heartbeat\n", ignored_events=["heartbeat"])

    assert (events.num_rows, report.n_ignored, rejects) == (200, 1, [])


def test_the_events_say_where_they_come_from(load, tmp_path):
    folder = tmp_path / "days"
    folder.mkdir()
    header = "UserID,ProductCode,Event,Timestamp\n"
    (folder / "monday.csv").write_text(header + "1,2,view,1430623510\n1,3,scroll,1430623511\n")
    (folder / "tuesday.csv").write_text(header + "2,2,click,1430709910\n1,2,view,1430623509\n,2,view,1\n")
    _, events, _ = load(None, path=str(folder), ignored_events=["scroll"], max_rejected_share=0.5)

    assert stored_metadata(events)["feed"] == {
        "files": 2,
        "first_file": "monday.csv",
        "last_file": "tuesday.csv",
        "rows": 3,
        "rejected": 1,
        "ignored": 1,
        "events": {"view": 2, "click": 1},
        "first_event": "2015-05-03T03:25:09+00:00",
        "last_event": "2015-05-04T03:25:10+00:00",
    }


def test_and_the_same_events_elsewhere_are_the_same_state(load, warehouse):
    load(HEADER + GOOD, name="here/feedback.csv")
    before = warehouse.write_id("raw_feedback")
    _, events, _ = load(HEADER + GOOD, name="there/feedback.csv")

    assert warehouse.write_id("raw_feedback") == before
    feed = stored_metadata(events)["feed"]
    assert (feed["first_event"], feed["last_event"]) == (None, None)


# --- What is quarantined ---


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(",5,view", "blank UserID", id="missing user"),
        pytest.param("5,  ,view", "blank ProductCode", id="blank item"),
        pytest.param("5,5,", "blank Event", id="missing event"),
        pytest.param("5,5,gift", "unknown Event 'gift'", id="unknown event"),
        pytest.param("5,5", "2 columns instead of 3", id="too few columns"),
        pytest.param("5,5,view,9", "4 columns instead of 3", id="too many columns"),
    ],
)
@pytest.mark.parametrize("block", [300, 8 << 20])
def test_a_bad_row_is_kept_with_file_line_and_reason(load, tmp_path, monkeypatch, block, line, reason):
    monkeypatch.setattr(csv_rows, "_BLOCK_BYTES", block)
    # Lines 1 to 201 are the header and good rows; an empty line is no row.
    report, events, rejects = load(HEADER + GOOD + "\n" + line + "\n7,7,view\n")

    assert rejects == [
        {"file": str(tmp_path / "feedback.csv"), "line": 203, "reason": reason, "content": line}
    ]
    assert (report.n_rejected, events.num_rows) == (1, 201)


def test_many_bad_rows_all_have_their_lines(load, monkeypatch):
    monkeypatch.setattr(csv_rows, "_BLOCK_BYTES", 200)
    lines = [
        line if number % 3 else ("broken" if number % 2 else "1,1,gift")
        for number, line in enumerate(GOOD.splitlines())
    ]
    _, _, rejects = load(HEADER + "\n".join(lines), max_rejected_share=1.0)

    assert [row["line"] for row in rejects] == [number + 2 for number in range(0, 200, 3)]


def test_an_unclosed_quote_swallows_no_row_unseen(load):
    text = HEADER + GOOD + '7,"7,view\n8,8,view\n9,9,view\n'
    _, events, rejects = load(text, max_rejected_share=0.5)

    assert events.num_rows + len(rejects) == 203
    assert {row["reason"] for row in rejects} == {"inside a quoted value: an unclosed quote"}


def test_a_clean_feed_leaves_an_empty_quarantine(load):
    load(HEADER + GOOD + "5,5,gift\n")

    assert load(HEADER + GOOD)[2] == []


@pytest.mark.parametrize("blank", ["null", "NaN", "NONE", "na", "\\N"])
def test_one_bad_id_changes_no_other(load, blank):
    _, events, rejects = load(HEADER + GOOD + f"{blank},5,view\n")

    assert events["UserID"].to_pylist() == list(range(200))
    assert [(row["line"], row["reason"]) for row in rejects] == [(202, "blank UserID")]


def test_blank_ids_are_configuration(load):
    _, events, rejects = load(HEADER + "na,1,view\n-,2,view\n", blank_ids=["-"], max_rejected_share=0.5)

    assert events["UserID"].to_pylist() == ["na"]
    assert [row["reason"] for row in rejects] == ["blank UserID"]


def test_where_integers_are_wanted_a_row_with_another_id_is_rejected(load):
    _, events, rejects = load(HEADER + GOOD + "u1,5,view\n 7,5,view\n", user_id_type="integer")

    assert events["UserID"].to_pylist() == list(range(200))
    assert [(row["line"], row["reason"]) for row in rejects] == [
        (202, "UserID is no integer"),
        (203, "UserID is no integer"),
    ]


def test_where_strings_are_wanted_integers_are_text(load):
    _, events, _ = load(HEADER + GOOD, user_id_type="string")

    assert events["UserID"].to_pylist() == [str(user) for user in range(200)]


def test_a_type_other_than_the_last_runs_is_refused_and_nothing_changes(load, warehouse):
    load(HEADER + GOOD)
    before = warehouse.write_id("raw_feedback")

    with pytest.raises(
        InputError, match=r"UserID ids were integers .* and are text now: 'u7' .* in line 202"
    ):
        load(HEADER + GOOD + "u7,5,view\n")
    assert warehouse.write_id("raw_feedback") == before
    assert (
        load(HEADER + GOOD + "u7,5,view\n", user_id_type="string")[1].schema.field("UserID").type == "string"
    )
    # From now on they are text, whatever the next feed looks like.
    assert load(HEADER + GOOD)[1].schema.field("UserID").type == "string"


def test_a_damaged_table_of_the_last_run_does_not_stand_in_the_way(load, warehouse):
    load(HEADER + GOOD)
    warehouse.path_of("raw_feedback").write_bytes(b"rubbish")

    assert load(HEADER + GOOD)[1].num_rows == 200


def test_damaged_rows_of_the_last_run_do_not_let_the_type_of_ids_change(load, warehouse):
    load(HEADER + GOOD)
    path = warehouse.path_of("raw_feedback")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(bytes(content))

    with pytest.raises(InputError, match="were integers in the last run"):
        load(HEADER + GOOD + "u7,5,view\n")


def test_oddities_that_make_text_of_integers_are_remarked_upon(load):
    report, events, _ = load(HEADER + GOOD + "1e5,5,view\n")

    assert events.schema.field("UserID").type == "string"
    (remark,) = report.remarks
    assert "although most may be integers: '1e5' (the first in line 202 of" in remark


def test_a_nul_character_deep_in_a_file_becomes_part_of_no_id(load):
    many = "".join(f"{user},{user},view\n" for user in range(10_000))
    _, events, rejects = load(HEADER + many + "5\0,5,view\n")

    assert events.num_rows == 10_000
    assert [row["reason"] for row in rejects] == ["UserID holds a NUL character"]


def test_far_more_unknown_events_than_a_person_reads_are_counted_together(load):
    rows = "".join(f"{n},1,gift{n}\n" for n in range(1500))
    report, _, rejects = load(HEADER + GOOD + rows, max_rejected_share=1.0)

    assert len(rejects) == report.n_rejected == 1500
    assert len(report.reasons) == 1001
    assert report.reasons["other reasons"] == 500


# --- Which files ---


def test_a_path_that_exists_is_no_glob(load):
    assert load(HEADER + GOOD, "day[1].csv")[1].num_rows == 200


def test_folders_and_dangling_links_beside_the_files_are_told(load, tmp_path):
    folder = tmp_path / "days"
    (folder / "older").mkdir(parents=True)
    (folder / "a.csv").write_text(HEADER + GOOD)
    (folder / "gone.csv").symlink_to(tmp_path / "nowhere")

    report, events, _ = load(None, path=str(folder))
    assert events.num_rows == 200
    assert report.skipped == ["gone.csv", "older"]


def test_a_pipe_is_refused_and_does_not_hang(load, tmp_path):
    os.mkfifo(tmp_path / "feed.csv")

    with pytest.raises(InputError, match="neither a file nor a folder"):
        load(None, path=str(tmp_path / "feed.csv"))


def test_a_header_of_more_than_64_kb_is_read(load):
    wide = ",".join(f"c{number}" * 4 for number in range(20_000))
    _, events, _ = load(f"{wide},UserID,ProductCode,Event\n{',' * 20_000}1,2,view\n")

    assert events.to_pylist() == [{"UserID": 1, "ProductCode": 2, "Event": "view"}]


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "Input/output error"), TimeoutError("the store is slow")],
    ids=["disk", "store"],
)
def test_a_transient_error_while_parquet_is_read_is_no_bad_input(load, tmp_path, monkeypatch, error):
    pq.write_table(pa.table({"UserID": [3], "ProductCode": [3], "Event": ["view"]}), tmp_path / "f.parquet")

    def flaky(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(parquet_rows.pq.ParquetFile, "iter_batches", flaky)
    with pytest.raises(OSError, match=r"Input/output error|the store is slow") as raised:
        load(None, "f.parquet")
    assert not isinstance(raised.value, InputError)


# --- What is refused ---


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        pytest.param(None, "feedback.csv", "does not exist.*RECSYS_FEEDBACK", id="missing file"),
        pytest.param("", "feedback.csv", "is empty", id="empty file"),
        pytest.param(HEADER, "feedback.csv", "no rows, only a header", id="header only"),
        pytest.param(
            "UserID,Event\n1,view\n", "feedback.csv", "no column 'ProductCode'; it has", id="missing column"
        ),
        pytest.param(
            "UserID,UserID,ProductCode,Event\n1,1,1,view\n", "feedback.csv", "stands 2 times", id="twice"
        ),
        pytest.param(
            (HEADER + GOOD + "é,1,view\n").encode("latin-1"), "feedback.csv", "is not utf-8 text", id="late"
        ),
        pytest.param(
            (HEADER + GOOD).encode("utf-16"), "feedback.csv", "is not utf-8 text", id="wrong encoding"
        ),
        pytest.param(os.urandom(100_000), "feedback.csv", "is not utf-8 text", id="binary rubbish"),
        pytest.param(bytes(1000), "feedback.csv", "NUL bytes", id="zeros"),
        pytest.param(
            gzip.compress((HEADER + GOOD).encode())[:-20],
            "f.csv.gz",
            "cut short or damaged",
            id="truncated gzip",
        ),
        pytest.param(b"\x1f\x8bnot gzip", "f.csv.gz", "cut short or damaged", id="no gzip at all"),
        pytest.param(b"PAR1 rubbish", "f.parquet", "not a readable Parquet file", id="broken parquet"),
        pytest.param(HEADER + GOOD, "feedback.txt", "cannot tell the format", id="unknown ending"),
        pytest.param(
            HEADER + f"1,{'x' * (20 << 20)},view\n", "f.csv", "a row is longer than 8 MB", id="long row"
        ),
        pytest.param("x" * (5 << 20), "f.csv", "first line is longer than 4 MB", id="long header"),
        pytest.param(
            HEADER + "1,1,gift\n" * 3 + GOOD,
            "f.csv",
            r"3 of 203 rows are bad.*unknown Event 'gift' \(3\).*line 2 of",
            id="too many bad",
        ),
    ],
)
def test_one_clear_error_and_the_previous_events_untouched(load, warehouse, content, name, message):
    load(HEADER + GOOD, "good.csv")
    before = warehouse.write_id("raw_feedback")

    with pytest.raises(InputError, match=message) as raised:
        load(content, name)
    assert "\n" not in str(raised.value)
    assert warehouse.write_id("raw_feedback") == before
    assert {path.name for path in warehouse.root.iterdir() if path.name.startswith(".")} == {".tables"}


def test_a_refused_feed_shows_its_bad_rows(load, warehouse):
    with pytest.raises(InputError, match=r"All are in .*rejected_feedback.parquet"):
        load(HEADER + "1,1,gift\n" * 3)

    assert warehouse.read_table("rejected_feedback").num_rows == 3


def test_a_feed_with_nothing_left_is_refused(load):
    with pytest.raises(InputError, match="no row is left, 1 were ignored"):
        load(HEADER + "1,1,noise\n", ignored_events=["noise"])
    with pytest.raises(InputError, match="no row is left"):
        load(HEADER + "1,,view\n", max_rejected_share=1.0)


def test_an_empty_folder_or_a_glob_without_a_match_is_refused(load, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no file to read"):
        load(None, path=str(tmp_path / "empty"))
    with pytest.raises(InputError, match="no file matches"):
        load(None, path=str(tmp_path / "*.csv.zip"))


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("UserID", [1.5, 2.5], "holds double; it must hold integers or text"),
        ("Event", [1, 2], "must hold text"),
        ("ProductCode", pa.array([2**63], pa.uint64()), "beyond 64 bits"),
    ],
)
def test_parquet_columns_of_another_kind_are_refused(load, tmp_path, column, values, message):
    columns = {"UserID": [1] * len(values), "ProductCode": [1] * len(values), "Event": ["view"] * len(values)}
    pq.write_table(pa.table({**columns, column: values}), tmp_path / "f.parquet")

    with pytest.raises(InputError, match=message):
        load(None, "f.parquet")


def test_files_must_agree_on_having_timestamps(load, tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + "1,1,view\n")
    (tmp_path / "b.csv").write_text("UserID,ProductCode,Event,Timestamp\n1,1,view,5\n")

    with pytest.raises(InputError, match="some feedback files have a column Timestamp"):
        load(None, path=str(tmp_path / "*.csv"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"strengths": {}}, "name at least one event"),
        ({"strengths": {"view": 0.0}}, "a strength is above 0"),
        ({"strengths": {"view": float("nan")}}, "a strength is above 0"),
        ({"strengths": {"view": 1.0}, "ignored_events": ["view"]}, "also has a strength"),
        ({"max_rejected_share": 1.5}, "less than or equal to 1"),
        ({"path": "s3://key:secret@bucket/feed"}, "holds a password"),
        ({"delimiter": ";;"}, "at most 1 character"),
    ],
)
def test_settings_that_make_no_sense_fail_at_once(config, message):
    with pytest.raises(ValidationError, match=message):
        Feedback(**config)
