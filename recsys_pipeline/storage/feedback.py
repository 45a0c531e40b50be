"""Reading the raw feedback: CSV or Parquet, one file or many, as a stream."""

import codecs
import csv
import functools
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import IO, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from dagster import ConfigurableResource
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from upath import UPath

from recsys_pipeline import settings
from recsys_pipeline.core.columns import (
    EVENT,
    ITEM,
    REJECTED_CONTENT,
    REJECTED_FILE,
    REJECTED_LINE,
    REJECTED_REASON,
    TIMESTAMP,
    USER,
)
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.events import TIMESTAMP_TYPE, as_integers, judge
from recsys_pipeline.storage.atomic import atomic_file
from recsys_pipeline.storage.tables import COMPRESSION, read_parquet
from recsys_pipeline.storage.warehouse import Warehouse, without_secrets

_BLOCK_BYTES = 8 << 20
_BATCH_ROWS = 1 << 17
_GZIP_MAGIC = b"\x1f\x8b"
_CSV_ENDINGS = (".csv", ".csv.gz")
_PARQUET_ENDINGS = (".parquet",)
_REJECTED_SCHEMA = pa.schema(
    [
        (REJECTED_FILE, pa.string()),
        (REJECTED_LINE, pa.int64()),
        (REJECTED_REASON, pa.string()),
        (REJECTED_CONTENT, pa.string()),
    ]
)


class FileFormat(Enum):
    """Format of the feedback files; gzip is recognised by itself."""

    auto = "auto"
    csv = "csv"
    parquet = "parquet"


class TimestampUnit(Enum):
    """Unit of timestamps that are integers since 1970."""

    s = "s"
    ms = "ms"
    us = "us"


class Feedback(ConfigurableResource):  # type: ignore[type-arg]  # not generic at run time
    """The raw feedback: where it is and how to read it."""

    path: str = Field(
        default=settings.FEEDBACK,
        description="File, folder or glob, local or an object-store URL (RECSYS_FEEDBACK).",
    )
    format: FileFormat = Field(
        default=FileFormat.auto, description="`auto` goes by the ending: .csv, .csv.gz or .parquet."
    )
    delimiter: str = Field(default=",", min_length=1, max_length=1, description="Between CSV columns.")
    encoding: str = Field(default="utf-8", description="Of CSV files, by Python's name.")
    user_column: str = Field(default=settings.USER_COLUMN, description="RECSYS_USER_COLUMN")
    item_column: str = Field(default=settings.ITEM_COLUMN, description="RECSYS_ITEM_COLUMN")
    event_column: str = Field(default=settings.EVENT_COLUMN, description="RECSYS_EVENT_COLUMN")
    timestamp_column: str = Field(
        default=settings.TIMESTAMP_COLUMN,
        description="Must exist when named; when empty, a column `Timestamp` is used where there is one "
        "(RECSYS_TIMESTAMP_COLUMN).",
    )
    timestamp_unit: TimestampUnit = Field(
        default=TimestampUnit.s, description="Of timestamps that are integers since 1970."
    )
    strengths: dict[str, float] = Field(
        default=settings.STRENGTHS,
        description="Strength of each event, above 0; an event without one is rejected "
        "(RECSYS_STRENGTHS, as view=1,click=3).",
    )
    ignored_events: list[str] = Field(default=[], description="Events to leave out on purpose.")
    target_events: list[str] = Field(
        default=settings.TARGET_EVENTS,
        description="Events that a pair must have to be held out, such as a purchase; none names all "
        "(RECSYS_TARGET_EVENTS, as click,compare).",
    )
    seen_events: list[str] = Field(
        default=settings.SEEN_EVENTS,
        description="Events that hide an item from what is recommended to its user, in the evaluation too; "
        "none names all (RECSYS_SEEN_EVENTS).",
    )
    max_rejected_share: float = Field(
        default=settings.MAX_REJECTED_SHARE,
        ge=0,
        le=1,
        description="More rejected rows than this share fail the run (RECSYS_MAX_REJECTED_SHARE).",
    )

    _no_password = field_validator("path")(without_secrets)

    @model_validator(mode="after")
    def _strengths_make_sense(self) -> Self:
        if not self.strengths:
            raise ValueError("strengths: name at least one event")
        for event, strength in self.strengths.items():
            if not 0 < strength < float("inf"):
                raise ValueError(
                    f"strengths: {event!r} has {strength}; a strength is above 0. "
                    "To leave an event out, list it in ignored_events"
                )
        if both := set(self.strengths) & set(self.ignored_events):
            raise ValueError(f"ignored_events: {', '.join(sorted(both))} also has a strength; keep one")
        for field_name, events in (("target_events", self.target_events), ("seen_events", self.seen_events)):
            if unknown := set(events) - set(self.strengths):
                raise ValueError(f"{field_name}: {', '.join(sorted(unknown))} has no strength")
        return self


@dataclass
class IngestReport:
    """What was read, and what became of it."""

    files: list[str] = field(default_factory=list)
    schema: pa.Schema | None = None
    n_accepted: int = 0
    n_ignored: int = 0
    n_rejected: int = 0
    n_empty: int = 0
    events: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    first_rejected: str = ""

    @property
    def rejected_share(self) -> float:
        """Rejected rows over all rows."""
        return self.n_rejected / max(self.n_rejected + self.n_accepted + self.n_ignored, 1)


def ingest(feedback: Feedback, warehouse: Warehouse, accepted: str, rejected: str) -> IngestReport:
    """Read all feedback into the table `accepted`, its bad rows into the table `rejected`.

    A stream: memory does not grow with the feed. `rejected` is written even when the feed is refused,
    so that it can be looked at; `accepted` is then left as it was.

    Raises:
        InputError: the feed cannot be read, is empty, or has too many bad rows.
    """
    report = IngestReport()
    known = list(feedback.strengths)
    with atomic_file(warehouse.table_path(accepted)) as accepted_file:
        with (
            atomic_file(warehouse.table_path(rejected)) as rejected_file,
            pq.ParquetWriter(rejected_file, _REJECTED_SCHEMA, compression=COMPRESSION) as quarantine,
            _EventWriter(accepted_file) as events,
        ):
            for file in _files(feedback):
                report.files.append(str(file))
                for batch in _read(file, feedback):
                    judged = judge(batch.rows, known, feedback.ignored_events, feedback.timestamp_unit.value)
                    events.write(judged.accepted, typed=batch.typed)
                    _quarantine(quarantine, str(file), batch, judged.reasons, report)
                    report.n_accepted += judged.accepted.num_rows
                    report.n_ignored += judged.n_ignored
                    report.n_empty += batch.n_empty
                    counted = judged.accepted[EVENT].value_counts()
                    report.events.update(
                        dict(zip(*(part.to_pylist() for part in counted.flatten()), strict=True))
                    )
        _require_a_good_feed(report, feedback, warehouse.table_path(rejected))
        report.schema = events.schema
    return report


def _require_a_good_feed(report: IngestReport, feedback: Feedback, rejected: UPath) -> None:
    if not (report.n_accepted or report.n_rejected or report.n_ignored):
        raise InputError(f"{feedback.path} has no rows, only a header. Was the export cut short?")
    reasons = ", ".join(f"{reason} ({count:,})" for reason, count in report.reasons.most_common(5))
    if report.rejected_share > feedback.max_rejected_share:
        total = report.n_accepted + report.n_rejected + report.n_ignored
        raise InputError(
            f"{feedback.path}: {report.n_rejected:,} of {total:,} rows are bad, more than "
            f"max_rejected_share {feedback.max_rejected_share:g} allows: {reasons}; the first is "
            f"{report.first_rejected}. All are in {rejected}. Mend the feed, give a new event its strength, "
            "or raise max_rejected_share."
        )
    if not report.n_accepted:
        raise InputError(
            f"{feedback.path}: no row is left, {report.n_ignored:,} were ignored and {report.n_rejected:,} "
            f"rejected{': ' + reasons if reasons else ''}."
        )


def read_pairs(path: str, feedback: Feedback, users: pa.DataType, items: pa.DataType) -> pa.Table:
    """The distinct (user, item) pairs of a file: columns UserID and ProductCode, in the order of the file.

    Args:
        path: CSV or Parquet, as the feedback is: same columns, same ending.
        feedback: names of the columns, delimiter, encoding.
        users: type of the ids of users.
        items: type of the ids of items.

    Raises:
        InputError: the file cannot be read, or an id is blank or not of its type.
    """
    columns = {USER: (feedback.user_column, users), ITEM: (feedback.item_column, items)}
    names = [name for name, _ in columns.values()]
    read = []
    for file in _files(feedback.model_copy(update={"path": path})):
        try:
            if _format_of(file, FileFormat.auto) is FileFormat.parquet:
                read.append(read_parquet(file, names))
                continue
            with file.open("rb") as opened:
                source = pa.CompressedInputStream(opened, "gzip") if file.suffix == ".gz" else opened
                as_text = pa_csv.ConvertOptions(
                    include_columns=names, column_types=dict.fromkeys(names, pa.string())
                )
                parse = pa_csv.ParseOptions(delimiter=feedback.delimiter)
                encoding = pa_csv.ReadOptions(encoding=feedback.encoding)
                read.append(pa_csv.read_csv(source, encoding, parse, as_text))
        except (pa.ArrowInvalid, pa.ArrowKeyError, OSError) as error:
            raise InputError(f"{file}: cannot read the columns {', '.join(names)}: {error}") from None
    pairs = {}
    for name, (column, wanted) in columns.items():
        ids = pa.chunked_array(
            [chunk for table in read for chunk in table[column].chunks], read[0][column].type
        )
        try:
            pairs[name] = ids.cast(wanted)
        except pa.ArrowInvalid as error:
            raise InputError(f"{path}: {column} is not {wanted} as in the feedback: {error}") from None
        if pairs[name].null_count:
            raise InputError(f"{path}: {pairs[name].null_count:,} rows have no {column}")
    table = pa.table(pairs)
    if not table.num_rows:
        raise InputError(f"{path} has no rows")
    return table.group_by([USER, ITEM], use_threads=False).aggregate([])


# --- Files ---------------------------------------------------------------------------------------


def _files(feedback: Feedback) -> list[UPath]:
    """The files behind a path, a folder or a glob, in the order of their names."""
    path = UPath(feedback.path)
    name = path.name
    if any(sign in str(path) for sign in "*?["):
        before, after = _split_glob(path)
        files = sorted((file for file in before.glob(after) if file.is_file()), key=str)
        if not files:
            raise InputError(f"no file matches {feedback.path}. Check the path (RECSYS_FEEDBACK).")
        return files
    if path.is_dir():
        # Names with a leading dot or underscore are marks that other tools leave, such as _SUCCESS.
        files = sorted(
            (file for file in path.iterdir() if file.is_file() and file.name[0] not in "._"), key=str
        )
        if not files:
            raise InputError(f"the folder {feedback.path} holds no feedback file.")
        return files
    if not path.exists() or not name:
        raise InputError(f"{feedback.path} does not exist. Set RECSYS_FEEDBACK, or `path` of `feedback`.")
    return [path]


def _split_glob(path: UPath) -> tuple[UPath, str]:
    parts: list[str] = []
    while any(sign in str(path) for sign in "*?["):
        parts.insert(0, path.name)
        path = path.parent
    return path, "/".join(parts)


def _format_of(file: UPath, wanted: FileFormat) -> FileFormat:
    if wanted is not FileFormat.auto:
        return wanted
    name = file.name.lower()
    if name.endswith(_CSV_ENDINGS):
        return FileFormat.csv
    if name.endswith(_PARQUET_ENDINGS):
        return FileFormat.parquet
    raise InputError(
        f"{file}: cannot tell the format by the ending; it is none of "
        f"{', '.join((*_CSV_ENDINGS, *_PARQUET_ENDINGS))}. Set `format`, or choose the files by a glob."
    )


# --- Batches -------------------------------------------------------------------------------------


@dataclass
class _Batch:
    """Rows under our column names.

    Attributes:
        rows: UserID, ProductCode, Event and, optionally, Timestamp.
        lines: (n_rows,) line in the file (CSV) or row (Parquet), from 1.
        typed: whether the columns' types are the file's own; those of a CSV file are all text.
        unparsed: lines that are no rows: line, reason, content.
        n_empty: empty lines.
    """

    rows: pa.RecordBatch
    lines: NDArray[np.int64]
    typed: bool
    unparsed: list[tuple[int, str, str]] = field(default_factory=list)
    n_empty: int = 0


def _read(file: UPath, feedback: Feedback) -> Iterator[_Batch]:
    is_csv = _format_of(file, feedback.format) is FileFormat.csv
    yield from _read_csv(file, feedback) if is_csv else _read_parquet(file, feedback)


def _our_columns(found: list[str], feedback: Feedback, file: UPath) -> dict[str, str]:
    """Our name of each column to read, by the file's name of it."""
    columns = {feedback.user_column: USER, feedback.item_column: ITEM, feedback.event_column: EVENT}
    if len(columns) < 3:
        raise InputError("user_column, item_column and event_column must be three different columns.")
    if feedback.timestamp_column or TIMESTAMP in found:
        columns[feedback.timestamp_column or TIMESTAMP] = TIMESTAMP
    if missing := [name for name in columns if name not in found]:
        raise InputError(
            f"{file}: no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, found[:20]))}. "
            "Name the columns in the `feedback` resource (user_column, item_column, event_column, "
            "timestamp_column), or set `delimiter`."
        )
    if repeated := [name for name in columns if found.count(name) > 1]:
        raise InputError(f"{file}: the column {repeated[0]!r} stands {found.count(repeated[0])} times.")
    return columns


def _read_parquet(file: UPath, feedback: Feedback) -> Iterator[_Batch]:
    with file.open("rb") as stream:
        try:
            parquet = pq.ParquetFile(stream)
            columns = _our_columns(parquet.schema_arrow.names, feedback, file)
            first_row = 1
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=list(columns)):
                arrays = {ours: _plain(batch[name], name, ours, file) for name, ours in columns.items()}
                lines = np.arange(first_row, first_row + batch.num_rows)
                yield _Batch(pa.RecordBatch.from_pydict(arrays), lines, typed=True)
                first_row += batch.num_rows
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"{file} is not a readable Parquet file: {_first_line(error)}") from None


def _plain(values: pa.Array, name: str, ours: str, file: UPath) -> pa.Array:
    """The values as one of the types that the pipeline works with."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return values.cast(pa.string())
    if pa.types.is_string(kind):
        return values
    if pa.types.is_integer(kind) and ours != EVENT:
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid:
            raise InputError(
                f"{file}: the column {name!r} holds integers beyond 64 bits; write them as text."
            ) from None
    if ours == TIMESTAMP and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return values if pa.types.is_timestamp(kind) else values.cast(pa.timestamp("us"))
    wanted = {EVENT: "text", TIMESTAMP: "timestamps, integers or text"}.get(ours, "integers or text")
    raise InputError(
        f"{file}: the column {name!r} holds {kind}; it must hold {wanted}. Cast it at the source."
    )


@contextmanager
def _csv_stream(file: UPath) -> Iterator[pa.NativeFile]:
    with ExitStack() as stack:
        raw: IO[bytes] = stack.enter_context(file.open("rb"))
        is_gzip = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        stream = stack.enter_context(pa.PythonFile(raw, "r"))
        if is_gzip:
            stream = stack.enter_context(pa.CompressedInputStream(stream, "gzip"))
        yield stream


def _header(file: UPath, feedback: Feedback) -> list[str]:
    """The column names of a CSV file, read from its first line."""
    with _csv_stream(file) as stream:
        start = stream.read(1 << 16)
    if not start.strip():
        raise InputError(f"{file} is empty. Was the export cut short?")
    try:
        text = codecs.getincrementaldecoder(feedback.encoding)().decode(start)
    except (UnicodeDecodeError, LookupError) as error:
        raise _not_text(file, feedback, error) from None
    if "\0" in text:
        raise _not_text(file, feedback, "it holds NUL bytes")
    first = text.lstrip("\ufeff").splitlines()[0]
    return next(csv.reader([first], delimiter=feedback.delimiter), [])


def _read_csv(file: UPath, feedback: Feedback) -> Iterator[_Batch]:
    try:
        columns = _our_columns(_header(file, feedback), feedback, file)
        bad_lines = _BadLines()
        with _csv_stream(file) as stream:
            reader = pa_csv.open_csv(
                stream,
                # One thread: only then does a bad row come with its number.
                read_options=pa_csv.ReadOptions(
                    use_threads=False, block_size=_BLOCK_BYTES, encoding=feedback.encoding
                ),
                parse_options=pa_csv.ParseOptions(
                    delimiter=feedback.delimiter,
                    ignore_empty_lines=False,
                    invalid_row_handler=bad_lines.note,
                ),
                convert_options=pa_csv.ConvertOptions(
                    include_columns=list(columns),
                    column_types=dict.fromkeys(columns, pa.string()),
                    strings_can_be_null=False,
                ),
            )
            n_rows = 0
            for batch in reader:
                rows = pa.RecordBatch.from_arrays(batch.columns, list(columns.values()))
                lines = bad_lines.lines_of_rows(n_rows, batch.num_rows)
                n_rows += batch.num_rows
                unparsed = bad_lines.take(up_to=lines[-1] if len(lines) else 0)
                # The parser hands on an empty line as a row of empty values; it is no row.
                filled = functools.reduce(pc.or_, (pc.not_equal(column, "") for column in rows.columns))
                yield _Batch(
                    rows.filter(filled),
                    lines[filled.to_numpy(zero_copy_only=False)],
                    typed=False,
                    unparsed=unparsed,
                    n_empty=rows.num_rows - filled.true_count,
                )
            nothing = pa.RecordBatch.from_pydict(
                {name: pa.array([], pa.string()) for name in columns.values()}
            )
            yield _Batch(nothing, np.empty(0, np.int64), typed=False, unparsed=bad_lines.take())
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise _unreadable_csv(file, feedback, error) from None
    except OSError as error:
        if "compressed stream" in str(error) or "inflate" in str(error):
            raise InputError(
                f"{file}: the gzip stream is cut short or damaged ({_first_line(error)}). "
                "Fetch the file again."
            ) from None
        raise


class _BadLines:
    """Keeps the lines of a CSV file that are no rows, and so the line number of each row."""

    def __init__(self) -> None:
        self._rows_before: list[int] = []
        self._fresh: list[tuple[int, str, str]] = []

    def note(self, row: pa_csv.InvalidRow) -> str:
        """Called by the parser for a line whose number of columns is not the header's."""
        self._rows_before.append(row.number - 2 - len(self._rows_before))
        reason = f"{row.actual_columns} columns instead of {row.expected_columns}"
        if "\n" in row.text:
            reason = "inside a quoted value: an unclosed quote"
        for offset, line in enumerate(row.text.split("\n")):
            self._fresh.append((row.number + offset, reason, line))
        return "skip"

    def lines_of_rows(self, first: int, n_rows: int) -> NDArray[np.int64]:
        """The lines of the parsed rows `first` to `first + n_rows`; the header is line 1."""
        rows = np.arange(first, first + n_rows)
        return rows + 2 + np.searchsorted(self._rows_before, rows, side="right")

    def take(self, up_to: int | None = None) -> list[tuple[int, str, str]]:
        """What was not taken yet, up to a line: the parser is ahead of the rows it hands on."""
        taken = [entry for entry in self._fresh if up_to is None or entry[0] <= up_to]
        self._fresh = self._fresh[len(taken) :]
        return taken


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _not_text(file: UPath, feedback: Feedback, error: object) -> InputError:
    return InputError(
        f"{file} is not {feedback.encoding} text ({error}). Set `encoding` of the `feedback` resource, "
        "`format` if it is no CSV file, or convert the file."
    )


def _unreadable_csv(file: UPath, feedback: Feedback, error: Exception) -> InputError:
    text = _first_line(error)
    if "UTF8" in text or isinstance(error, UnicodeDecodeError):
        return _not_text(file, feedback, text)
    if "out of sync" in text or "straddling" in text:
        return InputError(
            f"{file}: a quoted value does not end. Find the row with the unclosed quote and mend it "
            "(a value must not hold line breaks)."
        )
    return InputError(f"{file} cannot be read as CSV: {text}")


# --- Writing -------------------------------------------------------------------------------------


def _quarantine(
    writer: pq.ParquetWriter,
    file: str,
    batch: _Batch,
    reasons: NDArray[np.object_],
    report: IngestReport,
) -> None:
    """Write the rejected rows of a batch and count them."""
    rejected = np.flatnonzero(reasons != np.array(None))
    contents = zip(*(batch.rows.take(pa.array(rejected)).to_pydict().values()), strict=True)
    entries = batch.unparsed + [
        (int(line), reason, ",".join("" if value is None else str(value) for value in content))
        for line, reason, content in zip(batch.lines[rejected], reasons[rejected], contents, strict=True)
    ]
    if not entries:
        return
    entries.sort()
    if not report.n_rejected:
        line, reason, _ = entries[0]
        report.first_rejected = f"line {line:,} of {file}: {reason}"
    report.n_rejected += len(entries)
    report.reasons.update(reason for _, reason, _ in entries)
    lines, why, content = (list(part) for part in zip(*entries, strict=True))
    writer.write_table(pa.table([[file] * len(lines), lines, why, content], schema=_REJECTED_SCHEMA))


class _EventWriter:
    """Writes events to Parquet; an id column is of integers until the first id that is none.

    What was written so far is then rewritten as text, which loses nothing: the integers are those that
    read back as they were.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._writer: pq.ParquetWriter | None = None
        self.schema: pa.Schema | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.close()

    def write(self, events: pa.RecordBatch, *, typed: bool) -> None:
        """Append events; those of an untyped source have text for every id."""
        if not events.num_rows:
            return
        table = pa.Table.from_batches([events])
        for column in (USER, ITEM):
            ids = events[column]
            if not typed and not self._is_text(column):
                ids = self._integers_or_text(ids)
            elif self._is_text(column):
                ids = pc.cast(ids, pa.string())
            table = table.set_column(table.schema.get_field_index(column), column, ids)
        if self.schema is None:
            self._open(table.schema)
        elif set(table.schema.names) != set(self.schema.names):
            raise InputError(f"some feedback files have a column {TIMESTAMP} and others do not.")
        elif fresh_text := [
            name for name in (USER, ITEM) if table.schema.field(name).type != self.schema.field(name).type
        ]:
            self._rewrite_as_text(fresh_text)
        assert self._writer is not None
        assert self.schema is not None
        self._writer.write_table(table.select(self.schema.names).cast(self.schema))

    def _is_text(self, column: str) -> bool:
        return self.schema is not None and pa.types.is_string(self.schema.field(column).type)

    @staticmethod
    def _integers_or_text(ids: pa.Array) -> pa.Array:
        integers = as_integers(ids)
        return ids if integers is None else integers

    def _open(self, schema: pa.Schema) -> None:
        ids = [pa.field(name, schema.field(name).type, nullable=False) for name in (USER, ITEM)]
        fields = [*ids, pa.field(EVENT, pa.string())]
        if TIMESTAMP in schema.names:
            fields.append(pa.field(TIMESTAMP, TIMESTAMP_TYPE))
        self.schema = pa.schema(fields)
        self._writer = pq.ParquetWriter(self._file, self.schema, compression=COMPRESSION)

    def _rewrite_as_text(self, columns: list[str]) -> None:
        assert self._writer is not None
        assert self.schema is not None
        self._writer.close()
        before = self._file.rename(self._file.with_name(self._file.name + "-integers.tmp"))
        try:
            schema = self.schema
            for name in columns:
                schema = schema.set(schema.get_field_index(name), pa.field(name, pa.string()))
            self._open(schema)
            assert self.schema is not None
            for batch in pq.ParquetFile(before).iter_batches(_BATCH_ROWS):
                self._writer.write_batch(batch.cast(self.schema))
        finally:
            before.unlink()
