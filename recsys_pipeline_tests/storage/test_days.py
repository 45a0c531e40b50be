"""A feed day by day: a day is ingested once, and again alone; all days are one table."""

import pyarrow.parquet as pq
import pytest
from dagster import DagsterInstance, DailyPartitionsDefinition, materialize

from recsys_pipeline.assets.feedback import feedback_strengths, raw_feedback
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.metadata import FEED, stored_metadata
from recsys_pipeline.fingerprints import INPUT_TAG
from recsys_pipeline.storage.days import ingest_days
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.forgetting import WITHHELD
from recsys_pipeline.storage.io_manager import WarehouseIOManager

DAYS = ["2026-01-01", "2026-01-02", "2026-01-03"]
HEADER = "UserID,ProductCode,Event,Timestamp"


@pytest.fixture
def folder(tmp_path):
    """A file a day, with two events each."""
    (tmp_path / "events").mkdir()
    for number, day in enumerate(DAYS):
        write(tmp_path / "events", day, [f"1,{number},view,{day}T08:00:00Z", f"2,7,click,{day}T23:59:59Z"])
    return tmp_path / "events"


@pytest.fixture
def feedback(folder):
    return Feedback(path=f"{folder}/{{day}}.csv", first_day=DAYS[0])


def write(folder, day, rows):
    (folder / f"{day}.csv").write_text("\n".join([HEADER, *rows]) + "\n")


def items(warehouse):
    return sorted(warehouse.read_table("raw_feedback")["ProductCode"].to_pylist())


def parts(warehouse, asset="raw_feedback"):
    """By day, the inode of its part."""
    folder = warehouse.files_of(asset, warehouse.write_id(asset))
    return {path.stem: path.stat().st_ino for name, path in folder.items() if name.endswith(".parquet")}


def test_each_day_is_a_part_and_all_are_one_table(feedback, warehouse):
    report = ingest_days(feedback, warehouse)

    assert report.ingested == DAYS
    assert items(warehouse) == [0, 1, 2, 7, 7, 7]
    assert sorted(parts(warehouse)) == sorted(parts(warehouse, "rejected_feedback")) == DAYS
    feed = stored_metadata(warehouse.open_table("raw_feedback"))[FEED]
    assert (feed["rows"], feed["files"], feed["first_event"][:10]) == (6, 3, DAYS[0])
    # Readers without this package see one table too.
    assert pq.read_table(str(warehouse.path_of("raw_feedback"))).num_rows == 6


def test_a_day_is_ingested_once_and_again_when_its_file_changes(feedback, folder, warehouse):
    ingest_days(feedback, warehouse)
    before, write_id = parts(warehouse), warehouse.write_id("raw_feedback")
    again = ingest_days(feedback, warehouse)
    assert (again.ingested, warehouse.write_id("raw_feedback")) == ([], write_id)

    write(folder, DAYS[1], [f"3,9,view,{DAYS[1]}T08:00:00Z"])
    changed = ingest_days(feedback, warehouse)

    assert changed.ingested == [DAYS[1]]
    assert changed.remarks == [f"{DAYS[1]} has 1 events now and had 2"]
    assert items(warehouse) == [0, 2, 7, 7, 9]
    after = parts(warehouse)
    assert {day for day in DAYS if after[day] != before[day]} == {DAYS[1]}


def test_a_backfill_replaces_exactly_its_days(feedback, folder, warehouse):
    ingest_days(feedback, warehouse)
    for day in DAYS:
        write(folder, day, [f"3,9,view,{day}T08:00:00Z"])

    assert ingest_days(feedback, warehouse, DAYS[:2]).ingested == DAYS[:2]
    assert items(warehouse) == [2, 7, 9, 9]
    # From the first day in whatever order: the same table.
    write_id = warehouse.write_id("raw_feedback")
    ingest_days(feedback, warehouse, DAYS[1::-1])
    assert warehouse.write_id("raw_feedback") == write_id


def test_a_day_that_was_ingested_stays_when_its_file_is_gone(feedback, folder, warehouse):
    ingest_days(feedback, warehouse)
    (folder / f"{DAYS[0]}.csv").unlink()

    assert ingest_days(feedback, warehouse).ingested == []
    assert items(warehouse) == [0, 1, 2, 7, 7, 7]


def test_a_missing_day_is_named(feedback, folder, warehouse):
    (folder / f"{DAYS[1]}.csv").unlink()

    with pytest.raises(InputError, match=rf"^no file for {DAYS[1]}: .*\.csv does not exist\. Bring it"):
        ingest_days(feedback, warehouse)
    with pytest.raises(InputError, match=rf"^no file for {DAYS[1]}: "):
        ingest_days(feedback, warehouse, [DAYS[1]])


def test_a_day_may_have_no_events_and_events_may_be_of_another_day(feedback, folder, warehouse):
    write(folder, DAYS[1], [])
    write(folder, DAYS[2], [f"1,5,view,{DAYS[1]}T08:00:00Z", f"1,6,view,{DAYS[2]}T08:00:00Z"])
    report = ingest_days(feedback, warehouse)

    assert report.ingested == DAYS
    assert [report.days[day]["rows"] for day in DAYS] == [2, 0, 2]
    assert [report.days[day]["of_other_days"] for day in DAYS] == [0, 0, 1]
    assert sorted(parts(warehouse)) == [DAYS[0], DAYS[2]]


def test_ids_have_one_type_over_all_days(feedback, folder, warehouse):
    write(folder, DAYS[2], [f"1,x,view,{DAYS[2]}T08:00:00Z"])
    ingest_days(feedback, warehouse)
    assert items(warehouse) == ["0", "1", "7", "7", "x"]

    write(folder, DAYS[2], [f"1,5,view,{DAYS[2]}T08:00:00Z"])
    ingest_days(feedback, warehouse)
    assert items(warehouse) == ["0", "1", "5", "7", "7"]


def test_a_bad_day_is_refused_and_all_days_stay(feedback, folder, warehouse):
    ingest_days(feedback, warehouse)
    write(folder, DAYS[2], [f",5,view,{DAYS[2]}T08:00:00Z", f"1,6,view,{DAYS[2]}T08:00:00Z"])

    with pytest.raises(InputError, match=rf", {DAYS[2]}: 1 of 2 rows are bad"):
        ingest_days(feedback, warehouse)
    assert items(warehouse) == [0, 1, 2, 7, 7, 7]
    assert warehouse.read_table("rejected_feedback").num_rows == 1


def test_a_feed_without_files_for_each_day_is_parted_by_its_times(folder, warehouse):
    rows = [line for day in DAYS for line in (folder / f"{day}.csv").read_text().splitlines()[1:]]
    file = folder.parent / "events.csv"
    file.write_text("\n".join([HEADER, *rows]) + "\n")
    feedback = Feedback(path=str(file), first_day=DAYS[1])
    report = ingest_days(feedback, warehouse)

    assert (report.ingested, report.n_before) == (DAYS[1:], 2)
    assert items(warehouse) == [1, 2, 7, 7]
    assert ingest_days(feedback, warehouse).ingested == []

    # A later export need not have the days of before.
    file.write_text("\n".join([HEADER, f"3,9,view,{DAYS[2]}T08:00:00Z"]) + "\n")
    assert ingest_days(feedback, warehouse).ingested == [DAYS[2]]
    assert items(warehouse) == [1, 7, 9]


def test_days_without_times_or_files_of_their_own_are_refused(folder, warehouse):
    file = folder.parent / "events.csv"
    file.write_text("UserID,ProductCode,Event\n1,2,view\n")

    with pytest.raises(InputError, match=r"has no column Timestamp, by which the events belong to days"):
        ingest_days(Feedback(path=str(file), first_day=DAYS[0]), warehouse)


def test_dagster_knows_the_days_that_are_there(feedback, warehouse):
    """Of a run of some days, of a backfill in one run, and of a run that was asked for none."""
    by_day = raw_feedback.map_asset_specs(
        lambda spec: spec.replace_attributes(partitions_def=DailyPartitionsDefinition(start_date=DAYS[0]))
    )
    resources = {"feedback": feedback, "warehouse": warehouse}
    first, last = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
    with DagsterInstance.ephemeral() as instance:

        def run(**options):
            assert materialize([by_day], resources=resources, instance=instance, **options).success
            return sorted(instance.get_materialized_partitions(raw_feedback.key)), items(warehouse)

        assert run(partition_key=DAYS[1]) == ([DAYS[1]], [1, 7])
        assert run(tags={first: DAYS[0], last: DAYS[1]}) == (DAYS[:2], [0, 1, 7, 7])
        assert run() == (DAYS, [0, 1, 2, 7, 7, 7])


def test_what_follows_has_no_partitions_and_says_which_state_of_all_days_it_read(feedback, warehouse):
    by_day = raw_feedback.map_asset_specs(
        lambda spec: spec.replace_attributes(partitions_def=DailyPartitionsDefinition(start_date=DAYS[0]))
    )
    resources = {
        "feedback": feedback,
        "warehouse": warehouse,
        "io_manager": WarehouseIOManager(warehouse=warehouse),
    }
    with DagsterInstance.ephemeral() as instance:
        made = materialize([by_day, feedback_strengths], resources=resources, instance=instance)
        (strengths,) = made.asset_materializations_for_node("feedback_strengths")
        tags = strengths.tags
        feed = instance.get_latest_materialization_event(raw_feedback.key).asset_materialization

    assert warehouse.read_table("feedback_strengths").num_rows == 4
    state = warehouse.write_id("raw_feedback")
    assert tags[f"{INPUT_TAG}raw_feedback"] == feed.tags["dagster/data_version"] == state


# --- Users who are to be forgotten ----------------------------------------------------------------


@pytest.fixture
def forgetting(feedback, tmp_path):
    """The same feed, and user 1 is to be forgotten."""
    (tmp_path / "forget.csv").write_text("UserID\n1\n99\n")
    return feedback.model_copy(update={"forget_users": str(tmp_path / "forget.csv")})


def users(warehouse):
    return set(warehouse.read_table("raw_feedback")["UserID"].to_pylist())


def feed_of(warehouse):
    return stored_metadata(warehouse.open_table("raw_feedback"))[FEED]


def test_who_is_to_be_forgotten_leaves_the_days_that_are_there(feedback, forgetting, folder, warehouse):
    write(folder, DAYS[0], ["2,7,click,2026-01-01T23:59:59Z"])
    ingest_days(feedback, warehouse)
    before = parts(warehouse)
    report = ingest_days(forgetting, warehouse)

    assert report.ingested == []
    assert users(warehouse) == {2}
    after = parts(warehouse)
    assert {day for day in DAYS if after[day] != before[day]} == {DAYS[1], DAYS[2]}
    assert [report.days[day]["rows"] for day in DAYS] == [1, 1, 1]
    assert report.days[DAYS[1]]["events"] == {"click": 1}
    assert report.days[DAYS[1]]["first_event"] == report.days[DAYS[1]]["last_event"]
    assert feed_of(warehouse)["rows"] == 3
    assert feed_of(warehouse)["forgotten"] == {"listed": 2, "events": 2}


def test_then_there_is_nothing_new(feedback, forgetting, warehouse):
    ingest_days(feedback, warehouse)
    ingest_days(forgetting, warehouse)
    write_id = warehouse.write_id("raw_feedback")

    assert ingest_days(forgetting, warehouse).ingested == []
    assert warehouse.write_id("raw_feedback") == write_id


def test_nor_do_they_come_in_with_a_day_that_is_read(forgetting, folder, warehouse):
    (folder / f"{DAYS[2]}.csv").rename(folder / "later")
    ingest_days(forgetting, warehouse)
    (folder / "later").rename(folder / f"{DAYS[2]}.csv")
    report = ingest_days(forgetting, warehouse)

    assert report.ingested == [DAYS[2]]
    assert users(warehouse) == {2}
    assert feed_of(warehouse)["forgotten"] == {"listed": 2, "events": 3}


def test_a_backfill_of_one_day_forgets_in_all_of_them(feedback, forgetting, warehouse):
    ingest_days(feedback, warehouse)

    assert ingest_days(forgetting, warehouse, DAYS[:1]).ingested == DAYS[:1]
    assert users(warehouse) == {2}


def test_a_day_of_which_nothing_is_left_is_a_day_without_events(feedback, forgetting, folder, warehouse):
    write(folder, DAYS[1], [f"1,9,view,{DAYS[1]}T08:00:00Z"])
    ingest_days(feedback, warehouse)
    report = ingest_days(forgetting, warehouse)

    assert (report.days[DAYS[1]]["rows"], report.days[DAYS[1]]["last_event"]) == (0, None)
    assert sorted(parts(warehouse)) == [DAYS[0], DAYS[2]]


def test_rejected_rows_that_may_name_them_are_withheld(feedback, forgetting, folder, warehouse):
    stray = [f"1,9,refund,{DAYS[1]}T08:00:00Z", f"2,9,refund,{DAYS[1]}T08:00:00Z"]
    write(folder, DAYS[1], [*stray, f"2,9,view,{DAYS[1]}T08:00:00Z"])
    feedback, forgetting = (
        each.model_copy(update={"max_rejected_share": 1.0}) for each in (feedback, forgetting)
    )
    ingest_days(feedback, warehouse)
    ingest_days(forgetting, warehouse)

    rejected = warehouse.read_table("rejected_feedback")
    assert rejected["content"].to_pylist() == [WITHHELD, f"2,9,refund,{DAYS[1]}T08:00:00Z"]
    # And they are withheld once: the next run has nothing to do.
    write_id = warehouse.write_id("rejected_feedback")
    ingest_days(forgetting, warehouse)
    assert warehouse.write_id("rejected_feedback") == write_id


def test_of_a_feed_in_one_file_too(folder, forgetting, tmp_path, warehouse):
    lines = [line for day in DAYS for line in (folder / f"{day}.csv").read_text().splitlines()[1:]]
    (tmp_path / "all.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    whole = Feedback(path=str(tmp_path / "all.csv"), first_day=DAYS[0])
    ingest_days(whole, warehouse)
    ingest_days(whole.model_copy(update={"forget_users": forgetting.forget_users}), warehouse)

    assert users(warehouse) == {2}
    assert feed_of(warehouse)["forgotten"] == {"listed": 2, "events": 3}


def test_fewer_to_be_forgotten_are_refused(forgetting, tmp_path, warehouse):
    ingest_days(forgetting, warehouse)
    (tmp_path / "forget.csv").write_text("UserID\n1\n")

    with pytest.raises(InputError, match="names 1 users to be forgotten, 2 in the last run"):
        ingest_days(forgetting, warehouse)
