"""Raw feedback into the warehouse, as a stream: events into one table, rejected rows into another."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from upath import UPath

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
from recsys_pipeline.core.events import TIMESTAMP_TYPE, Criteria, Judgement, judge
from recsys_pipeline.core.ids import IdColumn, IdType
from recsys_pipeline.core.locations import database_feed
from recsys_pipeline.core.metadata import FEED, FORGOTTEN, KEY, metadata_of_schema
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.feeds.read import batches_of, names_of_sources
from recsys_pipeline.storage.feeds.rows import Batch, Columns
from recsys_pipeline.storage.forgetting import Forgotten, read_forgotten, require_no_fewer
from recsys_pipeline.storage.tables import COMPRESSION
from recsys_pipeline.storage.warehouse import Warehouse

_BATCH_ROWS = 1 << 17
# Between two lines of the log.
_ROWS_OF_A_LINE = 5_000_000
REJECTED_SCHEMA = pa.schema(
    [
        (REJECTED_FILE, pa.string()),
        (REJECTED_LINE, pa.int64()),
        (REJECTED_REASON, pa.string()),
        (REJECTED_CONTENT, pa.string()),
    ]
)
# Distinct reasons that are counted one by one: every unknown event is one.
_MOST_REASONS = 1000
_OTHER_REASONS = "other reasons"


# Rows with a note, of each of some sources, by name: see `judged_rows`.
Noted = tuple[pa.RecordBatch, Mapping[str, Any]]
Each = Callable[[Callable[[str], Iterable[Noted]], Sequence[str]], Iterable[Iterable[Noted]]]


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
    first_event: datetime | None = None
    last_event: datetime | None = None
    skipped: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    forgotten: dict[str, int] | None = None

    def count(self, judged: Judgement, batch: Batch) -> None:
        """Add what became of the rows of a batch, but for the rejected ones."""
        self.count_events(judged.accepted)
        self.n_ignored += judged.n_ignored
        self.n_empty += batch.n_empty

    def count_events(self, events: pa.RecordBatch) -> None:
        """Add rows that are events."""
        self.n_accepted += events.num_rows
        counted = events[EVENT].value_counts()
        self.events.update(dict(zip(*(part.to_pylist() for part in counted.flatten()), strict=True)))
        if TIMESTAMP in events.schema.names:
            ends = pc.min_max(events[TIMESTAMP]).as_py()
            known = [when for when in (self.first_event, self.last_event, *ends.values()) if when]
            self.first_event, self.last_event = min(known, default=None), max(known, default=None)

    def count_rejected(self, reasons: list[str]) -> None:
        """Add rejected rows by their reasons."""
        self.n_rejected += len(reasons)
        for reason, count in Counter(reasons).items():
            is_one_too_many = reason not in self.reasons and len(self.reasons) >= _MOST_REASONS
            self.reasons[_OTHER_REASONS if is_one_too_many else reason] += count

    def as_dict(self) -> dict[str, Any]:
        """What the events say of where they come from, as JSON.

        Names of files without their folders: the same files elsewhere are the same feed.
        """
        names = [Path(file).name for file in self.files]
        first, last = (when.isoformat() if when else None for when in (self.first_event, self.last_event))
        return {
            "files": len(names),
            "first_file": names[0],
            "last_file": names[-1],
            "rows": self.n_accepted,
            "rejected": self.n_rejected,
            "ignored": self.n_ignored,
            "events": dict(self.events),
            "first_event": first,
            "last_event": last,
            **({FORGOTTEN: self.forgotten} if self.forgotten else {}),
        }

    @property
    def n_rows(self) -> int:
        """All rows, whatever became of them."""
        return self.n_rejected + self.n_accepted + self.n_ignored

    @property
    def rejected_share(self) -> float:
        """Rejected rows over all rows."""
        return self.n_rejected / max(self.n_rows, 1)


def ingest(
    feedback: Feedback,
    warehouse: Warehouse,
    accepted: str,
    rejected: str,
    log: Callable[[str], None] = lambda _: None,
    each: Each = map,
) -> IngestReport:
    """Read all feedback into the table `accepted`, its bad rows into the table `rejected`.

    A stream: memory does not grow with the feed. `rejected` is written even when the feed is refused,
    so that it can be looked at; `accepted` is then left as it was. `log` hears of every five million rows.
    Files are read and judged by `each`, see `recsys_pipeline.engines.engine.Engine`.

    Raises:
        InputError: the feed cannot be read, is empty, or has too many bad rows.
    """
    report = IngestReport()
    # The strengths have the same ids, should the events of the last run be damaged.
    last = warehouse.schema_of(accepted) or warehouse.schema_of("feedback_strengths")
    ids = id_columns(feedback, last)
    forgotten = read_forgotten(feedback)
    require_no_fewer(forgotten, feedback, metadata_of_schema(last).get(FEED, {}))
    forgets = bool(len(forgotten.ids))
    with warehouse.replacing(accepted, forgets=forgets) as accepted_folder:
        with (
            warehouse.replacing(rejected, forgets=forgets) as rejected_folder,
            pq.ParquetWriter(
                rejected_folder / f"{rejected}.parquet", REJECTED_SCHEMA, compression=COMPRESSION
            ) as quarantine,
            EventWriter(accepted_folder / f"{accepted}.parquet", ids) as events,
        ):
            names, skipped = names_of_sources(feedback)
            report.skipped = [path.name for path in skipped]
            work = partial(judged_rows, feedback.model_dump(mode="json"), forgotten.anew(), str(Path.cwd()))
            # A database is asked by this process, which knows how.
            made = map(work, names) if database_feed(feedback.path) else each(work, names)
            told = 0
            for name, rows in zip(names, made, strict=True):
                report.files.append(name)
                for accepted_rows, note in rows:
                    judged, batch = _unpacked(accepted_rows, note, forgotten)
                    quarantine_rows(quarantine, name, batch, judged, report)
                    events.write(judged, batch, name)
                    report.count(judged, batch)
                    if report.n_rows >= told + _ROWS_OF_A_LINE:
                        told = report.n_rows
                        log(f"{told:,} rows read, {report.n_rejected:,} of them rejected; now {name}")
            report.forgotten = forgotten.as_dict() if forgets else None
            events.describe({FEED: report.as_dict()})
        require_a_good_feed(report, feedback, warehouse.path_of(rejected))
        report.schema = events.schema
        report.remarks = [column.remark for column in ids.values() if column.remark]
    return report


def judged_rows(settings: Mapping[str, Any], forgotten: Forgotten, folder: str, name: str) -> Iterator[Noted]:
    """The events of a source and their lines; the note has what else became of the rows.

    Whoever does this may be another process than that which writes them.

    Args:
        settings: those of `Feedback`.
        forgotten: whose rows are left out.
        folder: from which relative names lead.
        name: of a file, or of the database.

    Raises:
        InputError: the source cannot be read.
    """
    feedback = Feedback(**settings)
    criteria, columns, events = criteria_of(feedback), Columns.of_feedback(feedback), events_in(feedback)
    # Another process may be at home elsewhere.
    found = name if "://" in name or Path.cwd() == Path(folder) else str(Path(folder, name))
    for read in batches_of(found, feedback, columns):
        batch = forgotten.without(read, events) if len(forgotten.ids) else read
        judged = judge(batch.rows, criteria)
        lines = pa.array(batch.lines[judged.places])
        note = {
            "typed": batch.typed,
            "rejected": rejected_entries(batch, judged),
            "ignored": judged.n_ignored,
            "empty": batch.n_empty,
            "forgotten": forgotten.taken(),
        }
        yield judged.accepted.append_column(REJECTED_LINE, lines), note


def _unpacked(rows: pa.RecordBatch, note: Mapping[str, Any], forgotten: Forgotten) -> tuple[Judgement, Batch]:
    """What `judged_rows` packed, without the rows that were no events but for what was wrong with them."""
    lines = rows[REJECTED_LINE].to_numpy()
    events = rows.remove_column(rows.schema.get_field_index(REJECTED_LINE))
    unparsed = [(line, reason, content) for line, reason, content in note["rejected"]]
    forgotten.add(note["forgotten"])
    batch = Batch(events, lines, note["typed"], unparsed, note["empty"])
    no_reason = np.full(len(lines), None, dtype=object)
    return Judgement(events, np.arange(len(lines)), no_reason, note["ignored"]), batch


def events_in(feedback: Feedback) -> list[str]:
    """The events that the feed may have."""
    return [*feedback.strengths, *feedback.ignored_events]


def criteria_of(feedback: Feedback) -> Criteria:
    """What tells events from other rows."""
    pinned = {USER: feedback.user_id_type, ITEM: feedback.item_id_type}
    return Criteria(
        known=list(feedback.strengths),
        ignored=feedback.ignored_events,
        timestamp_unit=feedback.timestamp_unit.value,
        blank_ids=feedback.blank_ids,
        integer_ids=[column for column, wanted in pinned.items() if wanted is IdType.integer],
    )


def id_columns(feedback: Feedback, last: pa.Schema | None) -> dict[str, IdColumn]:
    """The id columns, by the schema of the last run; None where there was none."""
    pinned = {USER: ("user_id_type", feedback.user_id_type), ITEM: ("item_id_type", feedback.item_id_type)}
    return {
        column: IdColumn(column, setting, wanted, last.field(column).type if last else None)
        for column, (setting, wanted) in pinned.items()
    }


def require_a_good_feed(report: IngestReport, feedback: Feedback, rejected: UPath) -> None:
    """Refuse a feed without events, or with too many bad rows, which are in the table `rejected`.

    Raises:
        InputError: it says what is wrong.
    """
    if not report.n_rows:
        if report.forgotten and report.forgotten["events"]:
            raise InputError(f"{feedback.path}: all its rows are of users who are to be forgotten.")
        raise InputError(f"{feedback.path} has no rows, only a header. Was the export cut short?")
    require_few_rejected(report, feedback, rejected)
    if not report.n_accepted:
        reasons = _most_common(report)
        raise InputError(
            f"{feedback.path}: no row is left, {report.n_ignored:,} were ignored and {report.n_rejected:,} "
            f"rejected{': ' + reasons if reasons else ''}."
        )


def require_few_rejected(
    report: IngestReport, feedback: Feedback, rejected: UPath, location: str = ""
) -> None:
    """Refuse what has too many bad rows; `location` says where they were read, by default the feed.

    Raises:
        InputError: it says what is wrong.
    """
    reasons = _most_common(report)
    if report.rejected_share > feedback.max_rejected_share:
        raise InputError(
            f"{location or feedback.path}: {report.n_rejected:,} of {report.n_rows:,} rows are bad, more "
            f"than max_rejected_share {feedback.max_rejected_share:g} allows: {reasons}; the first is "
            f"{report.first_rejected}. All are in {rejected}. Mend the feed, give a new event its strength "
            "or list it in ignored_events (RECSYS_STRENGTHS, RECSYS_IGNORED_EVENTS), or raise "
            "max_rejected_share.",
            {
                "Rejected rows": report.n_rejected,
                "Rows": report.n_rows,
                "reasons of rejection": report.reasons,
                "rejected rows": rejected,
            },
        )


def _most_common(report: IngestReport) -> str:
    return ", ".join(f"{reason} ({count:,})" for reason, count in report.reasons.most_common(5))


def rejected_entries(batch: Batch, judged: Judgement) -> list[tuple[int, str, str]]:
    """Line, reason and content of the rejected rows of a batch, by line."""
    rejected = np.flatnonzero(judged.reasons != np.array(None))
    contents = zip(*(batch.rows.take(pa.array(rejected)).to_pydict().values()), strict=True)
    return sorted(
        batch.unparsed
        + [
            (int(line), reason, ",".join("" if value is None else str(value) for value in content))
            for line, reason, content in zip(
                batch.lines[rejected], judged.reasons[rejected], contents, strict=True
            )
        ]
    )


def quarantine_rows(
    writer: pq.ParquetWriter, file: str, batch: Batch, judged: Judgement, report: IngestReport
) -> None:
    """Write the rejected rows of a batch and count them."""
    entries = rejected_entries(batch, judged)
    if not entries:
        return
    if not report.n_rejected:
        line, reason, _ = entries[0]
        report.first_rejected = f"line {line:,} of {file}: {reason}"
    report.count_rejected([reason for _, reason, _ in entries])
    lines, why, content = (list(part) for part in zip(*entries, strict=True))
    writer.write_table(pa.table([[file] * len(lines), lines, why, content], schema=REJECTED_SCHEMA))


class EventWriter:
    """Writes events to Parquet; what was written is rewritten when integers turn out to be text."""

    def __init__(self, file: Path, ids: Mapping[str, IdColumn]) -> None:
        self._file, self._ids = file, ids
        self._writer: pq.ParquetWriter | None = None
        self.schema: pa.Schema | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer:
            self._writer.close()

    def write(self, judged: Judgement, batch: Batch, file: str) -> None:
        """Append the accepted rows of a batch of that file."""
        events = judged.accepted
        if not events.num_rows:
            return
        table = pa.Table.from_batches([events])
        for name, column in self._ids.items():
            ids = column.convert(events[name], batch.lines[judged.places], file, typed=batch.typed)
            table = table.set_column(table.schema.get_field_index(name), name, ids)
        schema = self._schema_for(table.schema.names)
        if self.schema is None:
            self._open(schema)
        elif schema.names != self.schema.names:
            raise InputError(f"some feedback files have a column {TIMESTAMP} and others do not.")
        elif schema != self.schema:
            self._rewrite(schema)
        assert self._writer is not None
        self._writer.write_table(table.select(schema.names).cast(schema))

    def describe(self, metadata: Mapping[str, Any]) -> None:
        """Say something of the events, after the last of them."""
        if self._writer:
            self._writer.add_key_value_metadata({KEY: json.dumps(metadata, sort_keys=True).encode()})

    def _schema_for(self, names: list[str]) -> pa.Schema:
        fields = [pa.field(name, column.type, nullable=False) for name, column in self._ids.items()]
        fields.append(pa.field(EVENT, pa.string()))
        if TIMESTAMP in names:
            fields.append(pa.field(TIMESTAMP, TIMESTAMP_TYPE))
        return pa.schema(fields)

    def _open(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._writer = pq.ParquetWriter(self._file, schema, compression=COMPRESSION)

    def _rewrite(self, schema: pa.Schema) -> None:
        """Write anew what is there, ids as text: they are integers that read back the same."""
        assert self._writer is not None
        self._writer.close()
        before = self._file.rename(self._file.with_name(self._file.name + ".before"))
        try:
            self._open(schema)
            with pq.ParquetFile(before) as written:
                for batch in written.iter_batches(_BATCH_ROWS):
                    self._writer.write_batch(batch.cast(schema))
        finally:
            before.unlink()
