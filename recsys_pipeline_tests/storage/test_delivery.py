"""What readers of the database see while releases are delivered, fail, and are taken back."""

import io
import re
import threading
from contextlib import ExitStack, contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys_pipeline.core.errors import InputError
from recsys_pipeline.storage import delivery
from recsys_pipeline.storage.postgres import session
from recsys_pipeline_tests.storage.killing import die, killed
from recsys_pipeline_tests.storage.postgres import GUARDED

LENGTH = 3


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(delivery, "_SECONDS_BETWEEN", 0.02)


def write_release(folder, number, users=("007", "08", "9"), items=("0042", "42", "x")):
    """A release in which every score is its number: of as many users and items as are named."""
    folder.mkdir()
    ranks = pa.array(np.arange(LENGTH) + 1, pa.int32())

    def lists(of):
        return {
            "rank": pa.array(np.tile(ranks, len(of)), pa.int32()),
            "score": pa.array(np.full(LENGTH * len(of), number), pa.float32()),
        }

    def repeated(of):
        return [each for each in of for _ in range(LENGTH)]

    of_users, of_items, of_nobody = lists(users), lists(items), lists("?")
    tables = {
        "recommendations": {
            "UserID": repeated(users),
            "rank": of_users["rank"],
            "ProductCode": [*items[:LENGTH]] * len(users),
            "score": of_users["score"],
            "source": ["als"] * (LENGTH * len(users)),
        },
        "similar_items": {
            "ProductCode": repeated(items),
            "rank": of_items["rank"],
            "SimilarProductCode": [*items[:LENGTH]] * len(items),
            "score": of_items["score"],
        },
        "popular_items": {
            "rank": of_nobody["rank"],
            "ProductCode": [*items[:LENGTH]],
            "score": of_nobody["score"],
        },
    }
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return folder


def deliver(url, folder, version, digest, log=lambda _: None, opened_by=io.FileIO, **options):
    """What `deliver` does with the tables of a folder."""
    with ExitStack() as opened:
        files = {
            table.name: opened.enter_context(opened_by(folder / f"{table.name}.parquet"))
            for table in delivery.TABLES
        }
        return delivery.deliver(url, files, version, digest, log, **options)


@pytest.fixture
def release(tmp_path):
    """Makes the folder of the release of a number, which has as many users."""

    def made(number):
        folder = tmp_path / f"release_{number}"
        if folder.exists():
            return folder
        return write_release(folder, number, users=[f"{user:05d}" for user in range(number)])

    return made


@pytest.fixture
def delivered(database, release):
    """Delivers the release of a number; returns what that did, and what it said."""

    def do(number, url=database, log=None, **options):
        told = []
        digest = f"hash of {number}"
        result = deliver(url, release(number), str(number), digest, log or told.append, **options)
        return result, told

    return do


def name_of(url):
    return re.search(r"/(\w+)\?", url)[1]


def rows(url, query, *values):
    with session(url) as connected:
        return connected.rows(query, *values)


def seen_in(connected):
    """The number of the release that all that one transaction sees belongs to.

    Raises:
        AssertionError: it is not whole, or not one release.
    """
    ((version, digest, *counts),) = connected.rows(
        "SELECT version, manifest_sha256, recommendations, similar_items, popular_items FROM recsys_release"
    )
    number = int(version)
    assert digest == f"hash of {number}"
    assert counts == [number * LENGTH, 3 * LENGTH, LENGTH]
    for name, count in zip(("recommendations", "similar_items", "popular_items"), counts, strict=True):
        found = connected.rows(f"SELECT count(*), min(score), max(score) FROM recsys_{name}")
        assert found == [(count, number, number)], name
    return number


def seen(url):
    with repeatable_read(url) as connected:
        return seen_in(connected)


@contextmanager
def repeatable_read(url):
    """A transaction in which all statements have one snapshot."""
    with session(url) as connected:
        connected.commit()
        connected.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        yield connected


def relations(url):
    query = "SELECT relname FROM pg_class WHERE relname LIKE 'recsys%' ORDER BY relname"
    return [name for (name,) in rows(url, query)]


def idle_bytes(url):
    """What the tables of the slot that is not shown take up."""
    (((current,),), total) = (
        rows(url, "SELECT slot FROM recsys_deliveries WHERE is_current"),
        "SELECT sum(pg_relation_size(oid))::bigint FROM pg_class WHERE relkind = 'r' AND relname LIKE $1",
    )
    return rows(url, total, f"recsys_%\\_{'a' if current == 'b' else 'b'}")[0][0]


# --- What is delivered ---


def test_the_tables_are_there_under_names_that_sql_takes_without_quotes(database, delivered):
    result, _ = delivered(2)

    assert result[:4] == ("2", {"recommendations": 6, "similar_items": 9, "popular_items": 3}, True, True)
    assert rows(database, "SELECT * FROM recsys_recommendations WHERE user_id = '00001' ORDER BY rank") == [
        ("00001", rank, item, 2.0, "als") for rank, item in ((1, "0042"), (2, "42"), (3, "x"))
    ]
    similar = "SELECT rank, similar_product_code, score FROM recsys_similar_items WHERE product_code = '42'"
    assert sorted(rows(database, similar)) == [(1, "0042", 2.0), (2, "42", 2.0), (3, "x", 2.0)]
    popular = "SELECT rank, product_code FROM recsys_popular_items ORDER BY rank"
    assert rows(database, popular) == [(1, "0042"), (2, "42"), (3, "x")]
    ((recently,),) = rows(database, "SELECT now() - delivered_at < interval '1 hour' FROM recsys_release")
    assert recently
    assert seen(database) == 2


def test_integer_ids_stay_integers_and_text_keeps_its_zeros(database, tmp_path):
    folder = write_release(tmp_path / "release", 1, users=[7, -(2**63)], items=["007", "7", "é"])
    deliver(database, folder, "1", "hash")

    query = "SELECT DISTINCT user_id, pg_typeof(user_id)::text FROM recsys_recommendations ORDER BY user_id"
    assert rows(database, query) == [(-(2**63), "bigint"), (7, "bigint")]
    query = "SELECT product_code FROM recsys_recommendations WHERE user_id = 7 ORDER BY rank"
    assert rows(database, query) == [("007",), ("7",), ("é",)]


def test_all_of_one_user_and_of_one_item_are_found_by_an_index(database, delivered):
    delivered(1)

    found = rows(database, "SELECT indexdef FROM pg_indexes WHERE indexname LIKE '%\\_key' ORDER BY 1")
    assert [re.sub(r".* ON public\.(\w+)_[ab] USING btree", r"\1", text) for (text,) in found] == [
        "recsys_popular_items (rank)",
        "recsys_recommendations (user_id, rank)",
        "recsys_similar_items (product_code, rank)",
    ]


def test_a_release_that_is_larger_than_a_batch_arrives_whole(database, delivered, monkeypatch):
    monkeypatch.setattr(delivery, "_BATCH_ROWS", 7)
    delivered(20)

    assert seen(database) == 20


def test_no_more_of_a_file_is_in_memory_than_is_being_loaded(database, release, monkeypatch):
    folder = release(20_000)
    path = folder / "recommendations.parquet"
    options = {"row_group_size": 1000, "use_dictionary": False, "compression": "none"}
    pq.write_table(pq.read_table(path), path, **options)
    so_far, at_first_batch = [], []
    batches = pq.ParquetFile.iter_batches

    class Watched(io.FileIO):
        def read(self, size=-1):
            content = super().read(size)
            so_far.append(len(content))
            return content

    def watching(*arguments, **options):
        for batch in batches(*arguments, **options):
            at_first_batch.append(sum(so_far))
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watching)
    monkeypatch.setattr(delivery, "_BATCH_ROWS", 1000)
    deliver(database, folder, "20000", "hash of 20000", opened_by=Watched)
    assert at_first_batch[0] < path.stat().st_size / 4
    assert seen(database) == 20_000


def test_the_schema_is_the_first_of_the_search_path(database, delivered):
    url = database + "&options=-csearch_path%3D%22The-Shop%22,public"
    with session(database) as connected:
        connected.execute('CREATE SCHEMA "The-Shop"')
        connected.commit()
    result, _ = delivered(1, url)

    assert result.place.startswith("schema The-Shop of the PostgreSQL database ")
    assert seen(url) == 1
    assert rows(database, "SELECT to_regclass('public.recsys_release') IS NULL") == [(True,)]


# --- One after the other ---


def test_the_next_release_replaces_the_last(database, delivered):
    delivered(2)
    before = relations(database)
    for number in (3, 1, 4):
        delivered(number)
        assert seen(database) == number
    # Both slots have their indexes by then.
    assert set(relations(database)) - set(before) == {
        "recsys_popular_items_b_key",
        "recsys_recommendations_b_key",
        "recsys_similar_items_b_key",
    }


def test_the_same_release_again_changes_nothing_and_says_so(database, delivered):
    delivered(2)
    at = rows(database, "SELECT delivered_at FROM recsys_release")
    result, told = delivered(2)

    assert not result.changed
    assert told == [f"{result.place} has version 2 already"]
    assert rows(database, "SELECT delivered_at FROM recsys_release") == at


def test_a_release_of_the_same_version_and_other_content_is_another_one(database, delivered, release):
    delivered(2)

    assert deliver(database, release(3), "2", "hash of 3").changed


def test_an_older_release_is_delivered_as_any_other(database, delivered):
    for number in (1, 2, 3):
        delivered(number)
    result, _ = delivered(1)

    assert result.changed
    assert result.loaded
    assert seen(database) == 1


def test_back_to_the_release_before_nothing_needs_to_be_loaded(database, delivered):
    delivered(1)
    delivered(2)
    result, told = delivered(1)

    assert result.changed
    assert not result.loaded
    assert not any("loading" in line for line in told)
    assert seen(database) == 1
    delivered(3)
    assert seen(database) == 3


# --- Readers ---


def test_what_readers_were_granted_and_have_built_survives(server, database, delivered):
    with session(database) as connected:
        connected.execute("CREATE ROLE reader LOGIN")
        connected.commit()
    try:
        delivered(1)
        with session(database) as connected:
            connected.execute("GRANT SELECT ON recsys_release, recsys_recommendations TO reader")
            connected.execute("GRANT SELECT (product_code) ON recsys_similar_items TO reader")
            connected.execute("CREATE VIEW firsts AS SELECT * FROM recsys_recommendations WHERE rank = 1")
            connected.commit()
        for number in (2, 3, 2, 1):
            delivered(number)
            reader = server.url(name_of(database), "reader")
            assert rows(reader, "SELECT count(*), max(score) FROM recsys_recommendations") == [
                (number * LENGTH, number)
            ]
            assert rows(reader, "SELECT version FROM recsys_release") == [(str(number),)]
            assert len(rows(reader, "SELECT product_code FROM recsys_similar_items")) == 3 * LENGTH
            assert rows(database, "SELECT count(*), max(score) FROM firsts") == [(number, number)]
        for refused in ("SELECT * FROM recsys_popular_items", "SELECT * FROM recsys_recommendations_a"):
            with pytest.raises(InputError, match="permission denied"):
                rows(reader, refused)
    finally:
        with session(database) as connected:
            connected.execute("DROP OWNED BY reader")
            connected.execute("DROP ROLE reader")
            connected.commit()


def test_a_transaction_sees_one_release_to_its_end_and_holds_up_no_switch(database, delivered):
    delivered(1)
    with repeatable_read(database) as connected:

        def begin(line):
            if line.startswith("loading recommendations"):
                assert connected.rows("SELECT version FROM recsys_release") == [("1",)]

        delivered(2, log=begin)
        assert seen(database) == 2
        assert seen_in(connected) == 1
        connected.commit()
        assert seen_in(connected) == 2


def test_nor_does_it_lose_sight_of_it_when_it_read_something_else_first(database, delivered):
    """A table that took the name of another would be empty for it."""
    delivered(1)
    with repeatable_read(database) as connected:
        connected.rows("SELECT now()")
        delivered(2)
        assert seen_in(connected) == 1


def test_readers_see_whole_releases_while_twenty_are_delivered(database, delivered):
    """In one transaction, and in one statement."""
    delivered(1)
    versions, failures = [], []
    changed, done = threading.Condition(), threading.Event()
    statement = (
        "SELECT r.version::int, (SELECT count(*) FROM recsys_recommendations), (SELECT max(score) FROM "
        "recsys_recommendations), (SELECT min(score) FROM recsys_similar_items) FROM recsys_release r"
    )

    def read():
        try:
            while not done.is_set():
                number = seen(database)
                with session(database) as connected:
                    ((version, count, *scores),) = connected.rows(statement)
                assert (count, *scores) == (version * LENGTH, version, version)
                with changed:
                    versions.append(number)
                    changed.notify_all()
        except BaseException as error:
            with changed:
                failures.append(error)
                changed.notify_all()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for number in range(2, 22):
            delivered(number)
            with changed:
                changed.wait_for(lambda n=number: versions[-1:] == [n] or failures, timeout=60)
            assert failures == []
    finally:
        done.set()
        reader.join()
    assert failures == []
    assert sorted(set(versions)) == list(range(min(versions), 22))


def test_a_transaction_that_was_there_before_a_delivery_is_waited_for_and_named(database, delivered):
    """It may see the slot that is to be emptied."""
    delivered(1)
    with repeatable_read(database) as connected:
        connected.execute("SET application_name = 'report'")
        assert seen_in(connected) == 1
        with pytest.raises(InputError) as refusal:
            delivered(2, patience_seconds=0)
        assert re.search(
            r"^schema public of .* is in use by session \d+ of postgres \(report, since 20\S+ \S+\)\. Wait "
            r"until it has finished or end it \(pg_terminate_backend\), or let",
            str(refusal.value),
        )
        assert seen_in(connected) == 1
        assert seen(database) == 1
        told = []

        def log(line):
            told.append(line)
            if "waiting for it" in line:
                connected.rollback()

        delivered(2, log=log)
    assert "(report, since" in told[0]
    assert seen(database) == 2


# --- Two at once ---


def test_the_second_of_two_deliveries_says_who_is_at_it(database, delivered):
    told = []

    def meanwhile(_):
        if not told:
            with pytest.raises(InputError) as refusal:
                delivered(2, patience_seconds=0)
            told.append(str(refusal.value))

    delivered(1, log=meanwhile)
    assert re.search(
        r"is in use by session \d+ of postgres \(recsys_pipeline delivering 1, since 20", told[0]
    )
    assert seen(database) == 1


def test_and_waits_for_the_first(database, delivered):
    begun, waiting, told = threading.Event(), threading.Event(), []

    def hold(_):
        begun.set()
        assert waiting.wait(60)

    def follow(line):
        told.append(line)
        waiting.set()

    first = threading.Thread(target=lambda: delivered(1, log=hold))
    first.start()
    assert begun.wait(60)
    delivered(2, log=follow)
    first.join()
    assert "recsys_pipeline delivering 1" in told[0]
    assert seen(database) == 2


# --- Kills and failures ---

STEPS = [
    *(
        f"{does} {table}"
        for does in ("loading", "indexing")
        for table in ("recommendations", "popular_items")
    ),
    "switching",
]


@pytest.fixture
def one_was_delivered(database, delivered):
    delivered(4)
    delivered(5)
    return relations(database)


def at(step, do):
    """A log that does something where the delivery comes to a step."""
    return lambda line: do() if line.startswith(step) else None


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("victim", ["backend", "server", "delivery"])
def test_a_kill_leaves_the_last_release_and_no_litter(
    server, database, delivered, one_was_delivered, step, victim
):
    if victim == "delivery":
        assert killed(lambda: delivered(6, log=at(step, die)))
    else:
        kill = server.kill if victim == "server" else lambda: server.kill_backend(name_of(database))
        with pytest.raises(ConnectionError, match="of the PostgreSQL database"):
            delivered(6, log=at(step, kill))
        server.restart()
    assert seen(database) == 5
    delivered(6)
    assert seen(database) == 6
    assert relations(database) == one_was_delivered


@pytest.mark.parametrize("victim", ["backend", "server", "delivery"])
def test_also_in_the_middle_of_a_load(server, database, delivered, one_was_delivered, monkeypatch, victim):
    monkeypatch.setattr(delivery, "_BATCH_ROWS", 2)
    kill = {
        "backend": lambda: server.kill_backend(name_of(database)),
        "server": server.kill,
        "delivery": die,
    }[victim]
    batches = pq.ParquetFile.iter_batches

    def dying(*arguments, **options):
        all_of_them = batches(*arguments, **options)
        yield next(all_of_them)
        kill()
        yield from all_of_them

    with monkeypatch.context() as changed:
        changed.setattr(pq.ParquetFile, "iter_batches", dying)
        if victim == "delivery":
            assert killed(lambda: delivered(6))
        else:
            with pytest.raises(ConnectionError):
                delivered(6)
            server.restart()
    assert seen(database) == 5
    delivered(6)
    assert seen(database) == 6
    assert relations(database) == one_was_delivered


@pytest.mark.parametrize("step", STEPS)
def test_a_first_delivery_that_is_killed_shows_nothing(database, delivered, step):
    assert killed(lambda: delivered(1, log=at(step, die)))

    with pytest.raises(InputError, match='relation "recsys_release" does not exist'):
        rows(database, "SELECT * FROM recsys_release")
    delivered(2)
    assert seen(database) == 2


@pytest.mark.usefixtures("one_was_delivered")
def test_a_release_whose_file_is_damaged_leaves_the_last_one_and_takes_no_space(database, delivered, release):
    damaged = release(6) / "similar_items.parquet"
    content = bytearray(damaged.read_bytes())
    content[4:40] = bytes(36)
    damaged.write_bytes(content)
    with pytest.raises(OSError, match=r"[Tt]hrift|[Pp]age|deserialize"):
        delivered(6)

    assert seen(database) == 5
    assert idle_bytes(database) == 0


@pytest.mark.usefixtures("one_was_delivered")
def test_a_release_with_a_rank_twice_is_refused(database, tmp_path):
    folder = write_release(tmp_path / "twice", 1, users=["1", "1"])
    with pytest.raises(InputError, match=r"could not create unique index .*_key"):
        deliver(database, folder, "6", "hash")

    assert seen(database) == 5
    assert idle_bytes(database) == 0


@pytest.mark.usefixtures("one_was_delivered")
def test_a_run_that_is_ended_in_the_middle_of_a_load_leaves_the_last_release(
    database, delivered, monkeypatch
):
    """Whatever ends it: the driver turns every exception into one of its own."""

    def ended(*_, **__):
        raise KeyboardInterrupt
        yield

    with monkeypatch.context() as changed:
        changed.setattr(pq.ParquetFile, "iter_batches", ended)
        with pytest.raises(KeyboardInterrupt):
            delivered(6)
    assert seen(database) == 5
    delivered(6)
    assert seen(database) == 6


# --- What a person must mend ---


def test_other_types_of_ids_are_refused_until_the_readers_are_ready(database, delivered, tmp_path):
    delivered(1)
    folder = write_release(tmp_path / "integers", 2, users=[1, 2])
    with pytest.raises(InputError, match="has the columns user_id text, rank integer") as refusal:
        deliver(database, folder, "2", "hash of 2")
    assert "those of the release are user_id bigint, rank integer" in str(refusal.value)
    assert seen(database) == 1

    (mend,) = re.findall(r"DROP TABLE .* CASCADE", str(refusal.value))
    with session(database) as connected:
        connected.execute(mend)
        connected.commit()
    assert relations(database) == []
    deliver(database, folder, "2", "hash of 2")
    assert seen(database) == 2


def test_a_table_of_somebody_else_is_left_alone(database, delivered):
    with session(database) as connected:
        connected.execute("CREATE TABLE recsys_release (version text)")
        connected.commit()
    with pytest.raises(InputError, match="has recsys_release already, which no delivery has made"):
        delivered(1)
    assert relations(database) == ["recsys_release"]


def test_a_file_that_is_no_table_of_a_release_is_named(database, release):
    folder = release(1)
    pq.write_table(pa.table({"UserID": [1]}), folder / "recommendations.parquet")
    with pytest.raises(InputError, match=r"recommendations\.parquet has no column ProductCode, rank"):
        deliver(database, folder, "1", "hash")


@pytest.fixture
def guarded(database):
    """The database as one sees it who must give a password and owns nothing."""
    with session(database) as connected:
        connected.execute(f"CREATE ROLE {GUARDED} LOGIN PASSWORD 'hunter2'")
        connected.commit()
    yield database.replace("//postgres@", f"//{GUARDED}@")
    with session(database) as connected:
        connected.execute(f"DROP OWNED BY {GUARDED}")
        connected.execute(f"DROP ROLE {GUARDED}")
        connected.commit()


def test_a_password_that_is_missing_or_wrong(guarded, delivered, monkeypatch):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    with pytest.raises(InputError, match=r"no password supplied\. Give user and password by PGUSER"):
        delivered(1, guarded)
    monkeypatch.setenv("PGPASSWORD", "hunter3")
    with pytest.raises(InputError, match="password authentication failed") as refusal:
        delivered(1, guarded)
    assert "hunter3" not in str(refusal.value)


def test_the_password_may_come_from_a_passfile_and_the_rights_are_named(
    database, guarded, delivered, monkeypatch, tmp_path
):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    passfile = tmp_path / "passfile"
    passfile.write_text(f"*:*:*:{GUARDED}:hunter2\n")
    passfile.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passfile))
    with pytest.raises(InputError, match="permission denied for schema public") as refusal:
        delivered(1, guarded)
    (mend,) = re.findall(r"GRANT USAGE, CREATE ON SCHEMA .* TO guarded", str(refusal.value))
    with session(database) as connected:
        connected.execute(mend)
        connected.commit()
    assert delivered(1, guarded)[0].changed
    assert seen(guarded) == 1


def test_a_database_or_schema_that_does_not_exist(server, database, delivered):
    with pytest.raises(InputError, match=r'database "nowhere" does not exist\. Create the database, or'):
        delivered(1, server.url("nowhere"))
    with pytest.raises(InputError, match=r"has no schema in which postgres can make tables.*search_path"):
        delivered(1, database + "&options=-csearch_path%3Dnowhere")


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/shop", "postgresql:///shop?host=/no/such/folder"])
@pytest.mark.usefixtures("server")
def test_a_server_that_is_not_there_may_come_back(url, release):
    told = r"PostgreSQL cannot be reached: connection to server .* failed"
    with pytest.raises(ConnectionError, match=told):
        deliver(url, release(1), "1", "hash")


def test_where_users_are_to_be_forgotten_the_release_before_does_not_stay(database, release):
    deliver(database, release(3), "v1", "1")
    deliver(database, release(4), "v2", "2", keep_before=False)

    with session(database) as connected:
        assert connected.rows("SELECT count(*) FROM recsys_recommendations_a") == [(0,)]
        assert connected.rows("SELECT version FROM recsys_release") == [("v2",)]
    # Again, after a delivery that was not told so.
    deliver(database, release(5), "v3", "3")
    deliver(database, release(5), "v3", "3", keep_before=False)
    with session(database) as connected:
        assert connected.rows("SELECT count(*) FROM recsys_recommendations_b") == [(0,)]
        assert connected.rows("SELECT version FROM recsys_release") == [("v3",)]
