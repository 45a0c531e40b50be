"""A session with a PostgreSQL server: statements, bulk loads, and errors that say what a person must mend.

Of the driver (ADBC, which speaks through libpq) nothing is imported before there is a server to talk to.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa

from recsys_pipeline.core.errors import InputError

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection

_SECONDS_TO_CONNECT = 10
# The driver's name for the size of what it hands on at a time.
_BATCH_BYTES = "adbc.postgresql.batch_size_hint_bytes"
# What may pass by itself, in the words of libpq and of a server that starts, stops or is full.
_PASSING = re.compile(
    "refused|timeout expired|timed out|could not translate host name|No route to host|unreachable"
    "|No such file|closed the connection|reset by peer|starting up|shutting down|not yet accepting"
    "|recovery mode|too many clients|connection slots"
)
# By their beginning: SQLSTATEs of a connection or a server that ends, of deadlocks, of too many connections.
_PASSING_STATES = ("08", "57P", "40", "53300")
_LOCK_NOT_AVAILABLE = ("55P03", "40P01")
_READ_MENDS = {
    "28": "Give user and password by PGUSER and PGPASSWORD, or by a passfile (PGPASSFILE), not in the URL.",
    "3D": "Name another database in {setting}.",
    "42501": "Let it, as an administrator: GRANT SELECT to {user}, and USAGE on the schema.",
}
_MENDS = {
    **_READ_MENDS,
    "3D": "Create the database, or name another one in {setting}.",
    "42501": "Let it, as an administrator: GRANT USAGE, CREATE ON SCHEMA {schema} TO {user}. What another "
    "user has delivered, only that user can replace.",
    "53100": "Free some space on the server, which holds two releases at a time.",
}
# libpq does not say in which state it was refused.
_REFUSALS = {"database .* does not exist": "3D", "password|authentication|role|pg_hba": "28"}


class LockNotAvailableError(OSError):
    """Another session holds what a statement needs, and has for longer than `lock_timeout`."""


class Server(NamedTuple):
    """Where a session is.

    Attributes:
        database: its name.
        schema: the first of the user's search path, which is where tables are made; empty where none are.
        user: whose rights count.
    """

    database: str
    schema: str
    user: str

    def __str__(self) -> str:
        if not self.database:
            return "PostgreSQL"
        if not self.schema:
            return f"the PostgreSQL database {self.database}"
        return f"schema {self.schema} of the PostgreSQL database {self.database}"


class Session:
    """One connection; statements belong to a transaction that `commit` ends."""

    def __init__(self, connection: "Connection", setting: str, *, reads_only: bool) -> None:
        self._connection = connection
        self._setting = setting
        self._mends = _READ_MENDS if reads_only else _MENDS
        self.server = Server("", "", "")
        ((database, schema, user),) = self.rows("SELECT current_database(), current_schema(), current_user")
        if reads_only:
            # Begun anew, for what the level holds from the first statement on.
            self.rollback()
            self.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        elif schema is None:
            raise InputError(
                f"The PostgreSQL database {database} has no schema in which {user} can make tables: none of "
                f"the search path exists. Create it, or name another one in {setting}, such as "
                "postgresql://host/db?options=-csearch_path%3Dpublic."
            )
        self.server = Server(database, "" if reads_only else schema, user)

    def execute(self, statement: str, *values: object) -> None:
        """Run a statement without a result; $1 stands for the first value."""
        with self._errors(), self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What a query finds; $1 stands for the first value."""
        with self._errors(), self._connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return cursor.fetchall()

    def columns(self, query: str) -> pa.Schema:
        """The columns of a query, whose rows are not read; types that Arrow lacks are extensions of its."""
        with self._errors(), self._connection.cursor() as cursor:
            cursor.execute(f"SELECT * FROM ({query}\n) AS feed LIMIT 0")
            return cursor.fetch_record_batch().schema

    def stream(self, query: str, batch_bytes: int) -> Iterator[pa.RecordBatch]:
        """The rows of a query as they come from the server; they are never held whole.

        Args:
            query: one statement.
            batch_bytes: of a batch, about.
        """
        with self._connection.cursor() as cursor:
            with self._errors():
                cursor.adbc_statement.set_options(**{_BATCH_BYTES: str(batch_bytes)})
                cursor.execute(query)
                batches = cursor.fetch_record_batch()
            while (batch := self._next(batches)) is not None:
                yield batch

    def _next(self, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
        try:
            return next(batches, None)
        except OSError as error:
            # The driver tells by its text alone what happened in the middle of a stream.
            told = f"{self.server}: {_said(error)}"
            raise (ConnectionError if _PASSING.search(told) else InputError)(told) from None

    def load(self, table: str, batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> None:
        """Append a stream to a table by COPY; it is never held whole."""
        failures: list[BaseException] = []

        def watched() -> Iterator[pa.RecordBatch]:
            # An exception does not survive its way through the driver, and may be the end of a run.
            try:
                yield from batches
            except BaseException as error:
                failures.append(error)
                raise

        stream = pa.RecordBatchReader.from_batches(schema, watched())
        try:
            with self._errors(), self._connection.cursor() as cursor:
                cursor.adbc_ingest(table, stream, mode="append", db_schema_name=self.server.schema)
        except (InputError, OSError):
            if failures:
                raise failures[0] from None
            raise

    def commit(self) -> None:
        """Make what was done so far visible to others, and begin the next transaction."""
        with self._errors():
            self._connection.commit()

    def rollback(self) -> None:
        """Take back what was done since the last commit."""
        with self._errors():
            self._connection.rollback()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from adbc_driver_manager.dbapi import Error

        try:
            yield
        except Error as error:
            # Without a state nothing was answered.
            state = error.sqlstate or "08"
            told = f"{self.server}: {_said(error)}"
            if state in _LOCK_NOT_AVAILABLE:
                raise LockNotAvailableError(told) from None
            if state.startswith(_PASSING_STATES):
                raise ConnectionError(told) from None
            mends = (mend for begin, mend in self._mends.items() if state.startswith(begin))
            mend = next(mends, "").format(
                schema=quoted(self.server.schema), user=self.server.user, setting=self._setting
            )
            raise InputError(f"{told} {mend}".rstrip()) from None


def quoted(name: str) -> str:
    """A name as SQL takes it, whatever letters it has."""
    return '"' + name.replace('"', '""') + '"'


@contextmanager
def session(url: str, setting: str = "RECSYS_DELIVERY", *, reads_only: bool = False) -> Iterator[Session]:
    """A session, which ends with the block; what was not committed by then is taken back.

    Args:
        url: of the database; credentials come from libpq's environment variables or passfile.
        setting: what names it, for messages.
        reads_only: whether all of it is one read-only transaction of one snapshot.

    Raises:
        InputError: the driver is missing, or the server refuses for a reason that a person must mend.
        ConnectionError: the server cannot be reached, or the connection was lost; it may come back.
    """
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError as error:
        raise InputError(
            f"{setting} needs a package that is not installed ({error}): .venv/bin/pip install -e "
            "'.[postgres]'."
        ) from None
    try:
        connection = dbapi.connect(_within_seconds(url))
    except dbapi.Error as error:
        told = f"{setting}: PostgreSQL cannot be reached: {_said(error)}"
        if _PASSING.search(told):
            raise ConnectionError(told) from None
        by_state = _READ_MENDS if reads_only else _MENDS
        mends = (by_state[state] for words, state in _REFUSALS.items() if re.search(words, told))
        raise InputError(f"{told} {next(mends, '').format(setting=setting)}".rstrip()) from None
    try:
        yield Session(connection, setting, reads_only=reads_only)
    finally:
        # Of a connection that was lost, nothing is left to be closed.
        with suppress(dbapi.Error):
            connection.close()


def _within_seconds(url: str) -> str:
    """The URL with a limit to how long a server that says nothing is waited for, unless it has its own."""
    if "connect_timeout" in url or "PGCONNECT_TIMEOUT" in os.environ:
        return url
    return f"{url}{'&' if '?' in url else '?'}connect_timeout={_SECONDS_TO_CONNECT}"


def _said(error: Exception) -> str:
    """What the server or libpq said, without the driver's own words and the statement."""
    text = re.split(r"Query was:|SQLSTATE:|\nLINE \d", str(error))[0]
    text = re.split(r"ERROR:\s+|\[libpq\] Failed to [a-z ]+: ", text)[-1]
    said = " ".join(text.split())
    return said if said.endswith((".", "?")) else f"{said}."
