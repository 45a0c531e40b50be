"""A release's tables in PostgreSQL, for the shop's systems to read.

Each table is there twice, in slot a and in slot b; a view shows the slot whose row in `recsys_deliveries` is
the current one. A release is loaded into the other slot and becomes current by one row, in the transaction
that loaded it: which release a reader sees is decided by its snapshot, as for any other row. A table that is
renamed does not do that: a transaction that is older finds it under the name, and no row in it. Grants on the
views, and other views upon them, stay.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from recsys_pipeline.core.columns import ITEM, RANK, SCORE, SIMILAR, SOURCE, USER
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.storage.postgres import LockNotAvailableError, Session, quoted, session
from recsys_pipeline.storage.releases import current_release, open_tables, read_manifest

DELIVERIES = "recsys_deliveries"
RELEASE = "recsys_release"
_PREFIX = "recsys_"
_SLOTS = ("a", "b")

_COLUMNS = {
    USER: "user_id",
    RANK: "rank",
    ITEM: "product_code",
    SIMILAR: "similar_product_code",
    SCORE: "score",
    SOURCE: "source",
}
_IDS = (USER, ITEM, SIMILAR)
_TYPES = {RANK: pa.int32(), SCORE: pa.float32(), SOURCE: pa.string()}
_SQL_TYPES = {pa.int64(): "bigint", pa.string(): "text", pa.int32(): "integer", pa.float32(): "real"}

# Rows on their way at a time: some megabytes.
_BATCH_ROWS = 1 << 16
# Shorter than the server's deadlock_timeout, so that it is us who give way; readers wait no longer than that.
_LOCK_MILLISECONDS = 500
_SECONDS_BETWEEN = 1.0
# Any number, of which this package and the schema make the key of its lock.
_ADVISORY = 0x72656373
_SCHEMA_NUMBER = "(SELECT oid FROM pg_namespace WHERE nspname = current_schema())"


class _Table(NamedTuple):
    """One of the tables of a release.

    Attributes:
        name: of its file and, prefixed, of its view.
        columns: as the file has them.
        key: those that a row is found by, in the order of the file.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


TABLES = (
    _Table("recommendations", (USER, RANK, ITEM, SCORE, SOURCE), (USER, RANK)),
    _Table("similar_items", (ITEM, RANK, SIMILAR, SCORE), (ITEM, RANK)),
    _Table("popular_items", (RANK, ITEM, SCORE), (RANK,)),
)


class Delivered(NamedTuple):
    """What a delivery did.

    Attributes:
        version: the release that readers now see.
        rows: by table.
        changed: whether they saw another one before.
        loaded: whether its rows had to be loaded; those of the release before are still there.
        place: where, in words.
    """

    version: str
    rows: dict[str, int]
    changed: bool
    loaded: bool
    place: str


def deliver(
    url: str,
    files: Mapping[str, BinaryIO],
    version: str,
    manifest_sha256: str,
    log: Callable[[str], None],
    *,
    patience_seconds: float = 600.0,
    keep_before: bool = True,
) -> Delivered:
    """Let the readers of a database see a release, whole and from one moment to the next.

    Args:
        url: of the database; credentials come from libpq's environment variables or passfile.
        files: of the release, by name of the table: Parquet, verified.
        version: of the release.
        manifest_sha256: tells it from another release of the same version.
        log: told what is done, and who is waited for.
        patience_seconds: how long to wait for another delivery, and for readers that keep the older slot.
        keep_before: whether the rows of the release before stay, so that going back needs no loading.

    Raises:
        InputError: a person must mend it, says the message; readers see what they saw.
        OSError: the server was lost or cannot be reached, which may pass; likewise.
    """
    contents = {table: _Content(files[table.name], table) for table in TABLES}
    rows = {table.name: content.n_rows for table, content in contents.items()}
    with session(url) as connected:
        place = str(connected.server)
        database = _Database(connected, log, time.monotonic() + patience_seconds)
        database.hold(version)
        there = database.slots()
        release = _Release(version, manifest_sha256)
        current = next((slot for slot, held in there.items() if held.is_current), None)
        holding = next((slot for slot, held in there.items() if held.release == release), None)
        if holding is not None and holding == current:
            log(f"{place} has version {version} already")
            if not keep_before:
                database.empty(_other(holding))
            return Delivered(version, rows, changed=False, loaded=False, place=place)
        if holding is not None:
            log(f"{place} still holds version {version}: switching back to it")
            database.switch(holding, release, rows)
            filled = holding
        else:
            filled = _other(current)
            database.load(filled, release, contents, rows)
        if not keep_before:
            database.empty(_other(filled))
    log(f"{place} shows version {version}")
    return Delivered(version, rows, changed=True, loaded=holding is None, place=place)


def deliver_current(
    warehouse: UPath,
    url: str,
    log: Callable[[str], None],
    *,
    patience_seconds: float = 600.0,
    keep_before: bool = True,
) -> Delivered:
    """Deliver the release that readers of the warehouse have.

    Raises:
        InputError: as `deliver`; or there is no release, or its tables are not what was published.
        OSError: as `deliver`.
    """
    release = current_release(warehouse)
    manifest = read_manifest(release)
    assert release.manifest_sha256, "a warehouse has a pointer"
    with open_tables(release, manifest, [table.name for table in TABLES]) as files:
        return deliver(
            url,
            files,
            manifest["version"],
            release.manifest_sha256,
            log,
            patience_seconds=patience_seconds,
            keep_before=keep_before,
        )


class _Release(NamedTuple):
    version: str
    manifest_sha256: str


class _Held(NamedTuple):
    """What a slot holds."""

    release: _Release
    is_current: bool


class _Content:
    """A table of the release, as the database takes it."""

    def __init__(self, file: BinaryIO, table: _Table) -> None:
        # What is buffered ahead stays in memory until the file is closed.
        self._file = pq.ParquetFile(file, pre_buffer=False)
        found = self._file.schema_arrow
        self.n_rows: int = self._file.metadata.num_rows
        if missing := set(table.columns) - set(found.names):
            raise InputError(
                f"{table.name}.parquet has no column {', '.join(sorted(missing))}: it is none that the asset "
                f"`{table.name}` has written."
            )
        self._columns = table.columns
        self.schema = pa.schema(
            [(_COLUMNS[name], _TYPES.get(name) or _id_type(found.field(name).type)) for name in table.columns]
        )

    @property
    def sql_types(self) -> dict[str, str]:
        """By column, as the database has them."""
        return {field.name: _SQL_TYPES[field.type] for field in self.schema}

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows as a stream."""
        # By this thread: Arrow's may still hold a Python file when the interpreter ends, which aborts it.
        for batch in self._file.iter_batches(_BATCH_ROWS, columns=list(self._columns), use_threads=False):
            arrays = [
                batch.column(name).cast(field.type)
                for name, field in zip(self._columns, self.schema, strict=True)
            ]
            yield pa.record_batch(arrays, schema=self.schema)


def _id_type(found: pa.DataType) -> pa.DataType:
    return pa.int64() if pa.types.is_integer(found) else pa.string()


class _Database:
    """The tables, views and locks of one schema."""

    def __init__(self, connected: Session, log: Callable[[str], None], deadline: float) -> None:
        self._session = connected
        self._log = log
        self._deadline = deadline

    def hold(self, version: str) -> None:
        """Let no other delivery into this schema, for as long as the session lasts."""
        run = self._session.execute
        self._session.rows(
            "SELECT set_config('application_name', $1, false)", f"recsys_pipeline delivering {version}"
        )
        # A role's limits are for queries, not for a load.
        run("SET statement_timeout = 0")
        run("SET idle_in_transaction_session_timeout = 0")
        self._session.commit()
        self._waiting_for(self._is_alone, self._other_delivery)

    def slots(self) -> dict[str, _Held]:
        """What each slot holds; none if nothing was ever delivered."""
        if not self._exists(DELIVERIES):
            return {}
        query = f"SELECT slot, version, manifest_sha256, is_current FROM {self._name(DELIVERIES)}"
        return {
            slot: _Held(_Release(version, manifest_sha256), is_current)
            for slot, version, manifest_sha256, is_current in self._session.rows(query)
        }

    def load(
        self, slot: str, release: _Release, contents: Mapping[_Table, _Content], rows: Mapping[str, int]
    ) -> None:
        """Fill the slot that nobody reads, and make it the current one."""
        if self._exists(DELIVERIES):
            self._check_types(slot, contents)
        else:
            self._make(contents)
        self._waiting_for(lambda: self._is_emptied(slot), lambda: self._readers_of(slot))
        try:
            for table, content in contents.items():
                self._log(f"loading {table.name}: {content.n_rows:,} rows")
                self._session.load(_in_slot(table, slot), content.batches(), content.schema)
            for table in contents:
                self._log(f"indexing {table.name}")
                name, key = _in_slot(table, slot), ", ".join(_COLUMNS[column] for column in table.key)
                self._session.execute(
                    f"CREATE UNIQUE INDEX {_index(table, slot)} ON {self._name(name)} ({key})"
                )
                self._session.execute(f"ANALYZE {self._name(name)}")
            self.switch(slot, release, rows)
        except Exception:
            # What was loaded takes up space until it is truncated.
            with suppress(InputError, OSError):
                self._session.rollback()
                self._is_emptied(slot)
            raise

    def empty(self, slot: str) -> None:
        """Let nothing stay in a slot that is not the current one, once nobody reads it any more."""
        self._log("removing the rows of the release before")
        self._waiting_for(lambda: self._is_emptied(slot), lambda: self._readers_of(slot))

    def switch(self, slot: str, release: _Release, rows: Mapping[str, int]) -> None:
        """Make a slot that is filled the current one, from one moment to the next."""
        deliveries, run = self._name(DELIVERIES), self._session.execute
        counts = [rows[table.name] for table in TABLES]
        self._log(f"switching to version {release.version}")
        run(f"UPDATE {deliveries} SET is_current = false WHERE is_current")
        run(f"DELETE FROM {deliveries} WHERE slot = $1", slot)
        run(f"INSERT INTO {deliveries} VALUES ($1, true, $2, $3, now(), $4, $5, $6)", slot, *release, *counts)
        for name, query in self._views().items():
            # Only where it is missing: to replace a view is to wait for its readers.
            if not self._exists(name):
                run(f"CREATE VIEW {self._name(name)} AS {query}")
        self._session.commit()

    def _make(self, contents: Mapping[_Table, _Content]) -> None:
        """Make the tables, empty; the views come with the first release."""
        if taken := [name for name in self._views() if self._exists(name)]:
            raise InputError(
                f"{self._session.server} has {', '.join(taken)} already, which no delivery has made. Rename "
                "it, or deliver into another schema: postgresql://host/db?options=-csearch_path%3Dschema."
            )
        counts = ", ".join(f"{table.name} bigint NOT NULL" for table in TABLES)
        run, deliveries = self._session.execute, self._name(DELIVERIES)
        run(
            f"CREATE TABLE {deliveries} (slot text PRIMARY KEY, is_current boolean NOT NULL, version text "
            f"NOT NULL, manifest_sha256 text NOT NULL, delivered_at timestamptz NOT NULL, {counts})"
        )
        run(f"CREATE UNIQUE INDEX {DELIVERIES}_current ON {deliveries} (is_current) WHERE is_current")
        for table, content in contents.items():
            columns = ", ".join(f"{name} {kind} NOT NULL" for name, kind in content.sql_types.items())
            for slot in _SLOTS:
                run(f"CREATE TABLE {self._name(_in_slot(table, slot))} ({columns})")
        self._session.commit()

    def _views(self) -> dict[str, str]:
        current = f"FROM {self._name(DELIVERIES)} WHERE is_current"
        counts = ", ".join(table.name for table in TABLES)
        views = {RELEASE: f"SELECT version, manifest_sha256, delivered_at, {counts} {current}"}
        for table in TABLES:
            columns = ", ".join(_COLUMNS[name] for name in table.columns)
            # Of the two, the server executes only the one whose condition holds.
            views[_PREFIX + table.name] = " UNION ALL ".join(
                f"SELECT {columns} FROM {self._name(_in_slot(table, slot))} "
                f"WHERE (SELECT slot {current}) = '{slot}'"
                for slot in _SLOTS
            )
        return views

    def _check_types(self, slot: str, contents: Mapping[_Table, _Content]) -> None:
        """That the columns are those of the tables that are there.

        Raises:
            InputError: they are not; whoever reads them must know.
        """
        query = (
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = "
            "to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
        for table, content in contents.items():
            there = dict(self._session.rows(query, self._name(_in_slot(table, slot))))
            if there != content.sql_types:
                raise InputError(
                    f"{self._session.server}: {_PREFIX}{table.name} has the columns {_told(there)}; those of "
                    f"the release are {_told(content.sql_types)}. When its readers are ready for that, run: "
                    f"DROP TABLE {', '.join(self._tables(*_SLOTS))} CASCADE; then deliver again, and grant "
                    "the rights again."
                )

    def _is_alone(self) -> bool:
        ((alone,),) = self._session.rows(
            f"SELECT pg_try_advisory_lock({_ADVISORY}, {_SCHEMA_NUMBER}::integer)"
        )
        self._session.commit()
        return bool(alone)

    def _is_emptied(self, slot: str) -> bool:
        """Whether the slot could be emptied; a transaction that has read the views keeps both slots."""
        run = self._session.execute
        deliveries, *tables = self._tables(slot)
        try:
            run(f"SET LOCAL lock_timeout = {_LOCK_MILLISECONDS}")
            # Also the one that every view reads: who has seen which release is current shall find its rows.
            run(f"LOCK TABLE {', '.join((deliveries, *tables))} IN ACCESS EXCLUSIVE MODE")
        except LockNotAvailableError:
            self._session.rollback()
            return False
        run(f"DELETE FROM {deliveries} WHERE slot = $1", slot)
        for table in TABLES:
            run(f"DROP INDEX IF EXISTS {self._name(_index(table, slot))}")
        run(f"TRUNCATE {', '.join(tables)}")
        self._session.commit()
        return True

    def _waiting_for(self, attempt: Callable[[], bool], holders: Callable[[], str]) -> None:
        """Attempt it until it succeeds or patience ends, and say whom it waits for."""
        told = ""
        while not attempt():
            holding = holders()
            self._session.commit()
            if time.monotonic() >= self._deadline:
                raise InputError(
                    f"{self._session.server} is in use by {holding}. Wait until it has finished or end it "
                    "(pg_terminate_backend), or let the delivery wait longer (`lock_seconds` of `delivery`)."
                )
            if holding != told:
                self._log(f"{self._session.server} is in use by {holding}: waiting for it")
                told = holding
            time.sleep(_SECONDS_BETWEEN)

    def _other_delivery(self) -> str:
        return self._sessions(
            f"locktype = 'advisory' AND objsubid = 2 AND classid = {_ADVISORY} AND objid = {_SCHEMA_NUMBER}"
        )

    def _readers_of(self, slot: str) -> str:
        tables = ", ".join(f"to_regclass('{name}')" for name in self._tables(slot))
        return self._sessions(f"relation IN ({tables})")

    def _sessions(self, lock: str) -> str:
        """The sessions that hold a lock, in words."""
        found = self._session.rows(
            "SELECT DISTINCT pid, coalesce(usename, '?'), application_name, coalesce(xact_start, "
            "backend_start)::timestamptz(0)::text FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE "
            f"granted AND pid <> pg_backend_pid() AND {lock} ORDER BY pid"
        )
        sessions = [
            f"session {pid} of {user} ({', '.join(filter(None, (name, since and f'since {since}')))})"
            for pid, user, name, since in found
        ]
        return " and ".join(sessions) or "another session"

    def _exists(self, name: str) -> bool:
        ((found,),) = self._session.rows("SELECT to_regclass($1) IS NOT NULL", self._name(name))
        return bool(found)

    def _tables(self, *slots: str) -> list[str]:
        """The names of the tables: the one of deliveries first, then those of the slots."""
        in_slots = [_in_slot(table, slot) for table in TABLES for slot in slots]
        return [self._name(name) for name in (DELIVERIES, *in_slots)]

    def _name(self, name: str) -> str:
        return f"{quoted(self._session.server.schema)}.{name}"


def _other(slot: str | None) -> str:
    return _SLOTS[0] if slot != _SLOTS[0] else _SLOTS[1]


def _in_slot(table: _Table, slot: str) -> str:
    return f"{_PREFIX}{table.name}_{slot}"


def _index(table: _Table, slot: str) -> str:
    return f"{_in_slot(table, slot)}_key"


def _told(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())
