"""A feed that is a table or query of PostgreSQL: the same events and the same quarantine as of a CSV file."""

import sys

import pyarrow as pa
import pytest

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.locations import database_feed
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.feeds import database_rows
from recsys_pipeline.storage.feeds.read import files_beside_the_feed, files_of_feed
from recsys_pipeline.storage.ingest import ingest
from recsys_pipeline.storage.postgres import session
from recsys_pipeline.storage.warehouse import Warehouse
from recsys_pipeline_tests.storage.postgres import GUARDED

ROWS = [
    ("u1", "0042", "view", "2024-05-01T10:00:00Z"),
    ("u1", "42", "click", "2024-05-01T12:00:00+02:00"),
    ("null", "a", "view", "2024-05-02T00:00:00Z"),
    ("u2", "", "view", "2024-05-02T00:00:00Z"),
    ("u2", "b", "refund", "2024-05-02T00:00:00Z"),
    ("u2", "b", "view", None),
    ("u3", "c", "compare", "2024-05-03T00:00:00Z"),
]
TEXTS = 'CREATE TABLE events ("UserID" text, "ProductCode" text, "Event" text, "Timestamp" timestamptz)'


def fed(url, table="events", **parameters):
    named = {"table": table, **parameters} if table else parameters
    return url + ("&" if "?" in url else "?") + "&".join(f"{name}={value}" for name, value in named.items())


@pytest.fixture
def filled(database):
    """Makes a table of the database; tells its URL."""

    def made(create, rows=(), name="events"):
        with session(database) as connected:
            connected.execute(create)
            for row in rows:
                values = ", ".join("NULL" if value is None else f"'{value}'" for value in row)
                connected.execute(f"INSERT INTO {name} VALUES ({values})")
            connected.commit()
        return database

    return made


@pytest.fixture
def ingested(tmp_path):
    def made(path, **config):
        warehouse = Warehouse(path=str(tmp_path / "warehouse"))
        report = ingest(
            Feedback(path=str(path), **{"max_rejected_share": 0.9, **config}), warehouse, "events", "rejected"
        )
        return report, warehouse.read_table("events"), warehouse.read_table("rejected").to_pylist()

    return made


def test_a_table_is_read_as_the_same_rows_of_a_csv_file(filled, ingested, tmp_path):
    lines = [",".join("" if value is None else value for value in row) for row in ROWS]
    (tmp_path / "events.csv").write_text("\n".join(["UserID,ProductCode,Event,Timestamp", *lines]) + "\n")
    of_file, events_of_file, rejected_of_file = ingested(tmp_path / "events.csv")
    report, events, rejected = ingested(fed(filled(TEXTS, ROWS)))

    assert events.to_pydict() == events_of_file.to_pydict()
    assert (report.reasons, report.events) == (of_file.reasons, of_file.events)
    assert [row["reason"] for row in rejected] == [row["reason"] for row in rejected_of_file]
    # A file has a header.
    assert [row["line"] + 1 for row in rejected] == [row["line"] for row in rejected_of_file] == [4, 5, 6, 7]
    assert {row["file"] for row in rejected} == {"table events"}
    assert report.as_dict()["first_file"] == "table events"


def test_a_query_is_read_too(filled, ingested, tmp_path):
    url = filled(TEXTS, ROWS)
    query = tmp_path / "events.sql"
    query.write_text('SELECT "UserID" AS who, "ProductCode", "Event" FROM events -- all\nORDER BY 1, 2, 3;\n')
    report, events, rejected = ingested(fed(url, "", query=query), user_column="who")

    assert events["UserID"].to_pylist() == ["u1", "u1", "u2", "u3"]
    assert report.n_rejected == 3
    assert {row["file"] for row in rejected} == {f"query {query}"}
    feedback = Feedback(path=fed(url, "", query=query))
    assert [str(file) for file in files_beside_the_feed(feedback)] == [str(query)]
    assert files_of_feed(feedback) is None


@pytest.mark.parametrize(
    ("kind", "stored", "found"),
    [
        ("bigint", "73", 73),
        ("smallint", "73", 73),
        ("numeric(20,0)", "73", 73),
        ("numeric", "73.0", 73),
        ("numeric", "7.5", "7.5"),
        ("varchar(9)", "0073", "0073"),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ],
)
def test_ids_are_what_they_are(filled, ingested, kind, stored, found):
    create = f'CREATE TABLE events ("UserID" {kind}, "ProductCode" text, "Event" text)'
    report, events, _ = ingested(fed(filled(create, [(stored, "a", "view"), (None, "b", "view")])))

    assert events["UserID"].to_pylist() == [found]
    assert report.reasons == {"blank UserID": 1}


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("timestamptz", "2024-05-01 12:00:00+02"),
        ("timestamp", "2024-05-01 10:00:00"),
        ("bigint", "1714557600"),
        ("text", "2024-05-01T10:00:00Z"),
        ("date", "2024-05-01"),
    ],
)
def test_times_are_what_they_are(filled, ingested, kind, stored):
    create = f'CREATE TABLE events ("UserID" text, "ProductCode" text, "Event" text, at {kind})'
    _, events, _ = ingested(fed(filled(create, [("u", "a", "view", stored)])), timestamp_column="at")

    (when,) = events["Timestamp"].to_pylist()
    assert when.isoformat() == f"2024-05-01T{'00' if kind == 'date' else '10'}:00:00+00:00"


def test_a_schema_an_enumeration_and_many_batches(filled, ingested, database, monkeypatch):
    monkeypatch.setattr(database_rows, "_BATCH_ROWS", 1000)
    monkeypatch.setattr(database_rows, "_BATCH_BYTES", 1 << 14)
    filled("CREATE SCHEMA shop")
    filled("CREATE TYPE kind AS ENUM ('view', 'refund')")
    filled(
        'CREATE TABLE shop.log AS SELECT i AS "UserID", \'a\' AS "ProductCode", '
        "(CASE WHEN i = 4321 THEN 'refund' ELSE 'view' END)::kind AS \"Event\" "
        "FROM generate_series(1, 5000) g(i)"
    )
    _, events, rejected = ingested(fed(database, "shop.log"))

    assert events["UserID"].to_pylist() == [i for i in range(1, 5001) if i != 4321]
    assert [(row["line"], row["file"]) for row in rejected] == [(4321, "table shop.log")]


def test_all_of_it_is_one_snapshot_and_nothing_is_written(filled):
    url = filled(TEXTS)
    with session(url, reads_only=True) as connected:
        assert connected.rows("SELECT count(*) FROM events") == [(0,)]
        filled("INSERT INTO events VALUES ('u', 'a', 'view', now())")
        assert connected.rows("SELECT count(*) FROM events") == [(0,)]
        with pytest.raises(InputError, match="read-only transaction"):
            connected.execute("DELETE FROM events")


@pytest.mark.parametrize(
    ("table", "query", "message"),
    [
        ("nothing", "", 'table nothing: the PostgreSQL database shop_.*relation "nothing" does not exist'),
        ("", "SELECT 1; DROP TABLE events", "syntax error.*must hold one SELECT and nothing else"),
        ("", "DELETE FROM events", "syntax error.*must hold one SELECT"),
        ("", ";", "is empty. Write one SELECT into it"),
        ("", 'SELECT "UserID" FROM events', "no column 'ProductCode', 'Event'; it has 'UserID'"),
        (
            "",
            'SELECT 1.5::float8 AS "UserID", 1 AS "ProductCode", \'view\' AS "Event"',
            "holds double; it must",
        ),
        (
            "",
            'SELECT 1/(3-i) AS "UserID", 1 AS "ProductCode", \'view\' AS "Event" '
            "FROM generate_series(1,9) g(i)",
            "division by zero",
        ),
    ],
)
def test_what_a_person_must_mend(filled, ingested, tmp_path, table, query, message):
    url = filled(TEXTS)
    (tmp_path / "query.sql").write_text(query)
    with pytest.raises(InputError, match=message):
        ingested(fed(url, table) if table else fed(url, "", query=tmp_path / "query.sql"))


def test_a_query_that_is_not_there(filled, ingested, tmp_path):
    with pytest.raises(InputError, match=r"RECSYS_FEEDBACK: there is no file .*none\.sql with a query"):
        ingested(fed(filled(TEXTS), "", query=tmp_path / "none.sql"))


def test_a_server_that_is_down_or_asks_for_a_password(server, ingested, tmp_path):
    with pytest.raises(ConnectionError, match="RECSYS_FEEDBACK: PostgreSQL cannot be reached"):
        ingested(f"postgresql:///shop?host={tmp_path}&table=events")
    with pytest.raises(InputError, match="PGUSER and PGPASSWORD"):
        ingested(fed(server.url("postgres", GUARDED)))
    with pytest.raises(InputError, match="Name another database in RECSYS_FEEDBACK"):
        ingested(fed(server.url("nowhere")))


def test_a_server_that_dies_in_the_middle(server, filled):
    url = filled(TEXTS)
    with session(url, reads_only=True) as connected:
        rows = connected.stream("SELECT i FROM generate_series(1, 20000000) g(i)", 1 << 16)
        assert isinstance(next(rows), pa.RecordBatch)
        server.kill_backend(connected.server.database)
        with pytest.raises(ConnectionError, match="closed the connection"):
            list(rows)
    server.restart()


def test_without_the_driver_it_says_what_to_install(monkeypatch, ingested):
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
    with pytest.raises(InputError, match=r"RECSYS_FEEDBACK needs a package .*\.\[postgres\]"):
        ingested("postgresql://host/shop?table=events")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://u:hunter2@host/shop?table=events", "holds a password"),
        ("postgresql://host/shop?table=events&password=hunter2", "holds a password"),
        ("postgresql://host/shop", "needs one table or one query"),
        ("postgresql://host/shop?table=a&query=b.sql", "needs one table or one query"),
        ("postgresql://host/shop?table=", "needs one table or one query"),
    ],
)
def test_a_url_that_carries_a_secret_or_names_nothing_is_refused(url, message):
    with pytest.raises(ValueError, match=message) as refused:
        Feedback(path=url)
    assert "hunter2" not in str(refused.value)


def test_what_a_url_names():
    assert database_feed("s3://bucket/x?table=events") is None
    assert database_feed("postgresql://u@h:5432/db?sslmode=require&table=a.b&options=x%3Dy") == (
        "postgresql://u@h:5432/db?sslmode=require&options=x%3Dy",
        "a.b",
        "",
    )
    assert database_feed("postgres://h/db?query=my%20query.sql") == ("postgres://h/db", "", "my query.sql")
