"""A feed day by day: each day is a part of its own in the warehouse, replaced where it is ingested again.

All parts together are one table, a folder of part files. A day holds what its files say, also where that
happened on another day; of a feed without files for each day, it holds the events of that day. A day that was
ingested stays when its files are gone. Days and hours are those of UTC.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from upath import UPath

from recsys_pipeline.core.columns import REJECTED_CONTENT, TIMESTAMP, USER
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.events import Judgement, judge
from recsys_pipeline.core.metadata import FEED, FORGOTTEN, metadata_of_schema, stored_metadata
from recsys_pipeline.storage.atomic import local_path
from recsys_pipeline.storage.feedback import Feedback
from recsys_pipeline.storage.feeds.files import DAY, day_in, files_behind
from recsys_pipeline.storage.feeds.read import read_rows
from recsys_pipeline.storage.feeds.rows import Batch, Columns
from recsys_pipeline.storage.forgetting import LISTED, Forgotten, read_forgotten, require_no_fewer
from recsys_pipeline.storage.ingest import (
    REJECTED_SCHEMA,
    EventWriter,
    IngestReport,
    criteria_of,
    events_in,
    id_columns,
    quarantine_rows,
    require_few_rejected,
)
from recsys_pipeline.storage.source import seen
from recsys_pipeline.storage.states import States
from recsys_pipeline.storage.tables import COMPRESSION, FOLDER_METADATA
from recsys_pipeline.storage.warehouse import Warehouse

ACCEPTED, REJECTED = "raw_feedback", "rejected_feedback"
# A row a day: what was ingested, and from what. Nothing is made from it.
INGESTED = "ingested_days"
_DAYS = "days"
# The part of the rejected rows of a feed that has no files for each day: what is no event has no day.
_WHOLE_FEED = "feed"
_MICROSECONDS_PER_DAY = 86_400_000_000
_SHOWN_DAYS = 3
_EVENTS = "events"


@dataclass
class DaysReport:
    """What was ingested, and what is there now.

    Attributes:
        ingested: the days of this run.
        days: by day, what its part says, of all days that are there.
        feed: the same of all of them together.
        schema: of the events.
        reasons: of the rows that were rejected in this run.
        n_other_days: by day, events of other days in its files.
        n_before: events before the first day, which are left out.
        remarks: what a person should know.
    """

    ingested: list[str] = field(default_factory=list)
    days: dict[str, dict[str, Any]] = field(default_factory=dict)
    feed: dict[str, Any] = field(default_factory=dict)
    schema: pa.Schema | None = None
    reasons: Counter[str] = field(default_factory=Counter)
    n_other_days: Counter[str] = field(default_factory=Counter)
    n_before: int = 0
    remarks: list[str] = field(default_factory=list)


def ingest_days(feedback: Feedback, warehouse: Warehouse, days: Sequence[str] | None = None) -> DaysReport:
    """Read some days of a feed, each into its own part of `raw_feedback`; all other days stay as they are.

    Args:
        feedback: with a first day.
        warehouse: that has the table.
        days: as 2026-01-31; None for those that are missing, or whose files have changed.

    Raises:
        InputError: a day has no file or too many bad rows, or the events need times and have none.
    """
    report = DaysReport()
    forgotten = read_forgotten(feedback)
    require_no_fewer(forgotten, feedback, metadata_of_schema(warehouse.schema_of(ACCEPTED)).get(FEED, {}))
    present = _present(warehouse, report, required=days is not None)
    wanted = due_days(feedback, warehouse, set(present)) if days is None else list(days)
    if wanted == [] and not _hold(warehouse, forgotten):
        report.days, report.schema = present, warehouse.schema_of(ACCEPTED)
        report.feed = stored_metadata(warehouse.open_table(ACCEPTED))[FEED]
        return report
    source = _Source(feedback, wanted)
    forgets = bool(len(forgotten.ids))
    with warehouse.replacing(ACCEPTED, forgets=forgets) as folder:
        parts = folder / f"{ACCEPTED}.parquet"
        parts.mkdir()
        with warehouse.replacing(REJECTED, forgets=forgets) as rejected_folder:
            rejected = rejected_folder / f"{REJECTED}.parquet"
            reading = _Reading(feedback, warehouse, source, forgotten, parts, rejected)
            of_days = reading.run(report)
            withholding = partial(_withhold, forgotten)
            _carry(warehouse, REJECTED, rejected, {*of_days, _WHOLE_FEED}, report, withholding)
        for day, of_day in of_days.items():
            where = f"{feedback.path}, {day or 'all days'}"
            require_few_rejected(of_day, feedback, warehouse.path_of(REJECTED), where)
        told = {day: of_day.as_dict() for day, of_day in of_days.items() if day}
        report.ingested = sorted(told)
        leaving_out = partial(_leave_out, forgotten, events_in(feedback), present)
        _carry(warehouse, ACCEPTED, parts, told, report, leaving_out)
        for day, said in told.items():
            said["of_other_days"] = report.n_other_days[day]
            if day in present and said["rows"] < present[day]["rows"]:
                report.remarks.append(
                    f"{day} has {said['rows']:,} events now and had {present[day]['rows']:,}"
                )
        report.days = dict(sorted({**present, **told}.items()))
        report.feed = _together(report.days, of_days.get(""), forgotten)
        report.schema = _as_one_table(parts, feedback)
        metadata = {FEED: report.feed, _DAYS: report.days}
        (parts / FOLDER_METADATA).write_text(json.dumps(metadata, sort_keys=True), encoding="utf-8")
    report.remarks += reading.remarks
    _remember(warehouse, report, source)
    return report


def due_days(feedback: Feedback, warehouse: Warehouse, present: Collection[str]) -> list[str] | None:
    """The days that are missing, or whose files have changed since; None for all that the feed has.

    Args:
        feedback: with a first day.
        warehouse: that says what was ingested.
        present: the days that are there.

    Raises:
        InputError: a day before the last one has neither a file nor was it ever ingested.
    """
    ingested = _ingested(warehouse)
    if DAY not in feedback.path:
        now = seen([feedback.path]).fingerprint
        as_they_were = present and all(ingested.get(day) == now for day in present if day in ingested)
        return [] if as_they_were and now in ingested.values() else None
    files = _files_by_day(feedback)
    last = max([*files, *present], default=feedback.first_day)
    known = {*files, *present}
    if missing := [day for day in _range(feedback.first_day, last) if day not in known]:
        raise InputError(_no_file(feedback, missing))
    due = [day for day in files if day not in present or ingested.get(day) != _fingerprint(feedback, day)]
    return sorted(due)


class _Source:
    """The files of some days."""

    def __init__(self, feedback: Feedback, days: Sequence[str] | None) -> None:
        """`days` None stands for all."""
        self.days = days
        self.by_file = DAY in feedback.path
        self.files: dict[str, list[UPath]]
        if not self.by_file:
            self.files = {"": files_behind(feedback.path)[0]}
            self._fingerprints = {"": seen([feedback.path]).fingerprint}
            return
        found = _files_by_day(feedback)
        if missing := [day for day in days or () if day not in found]:
            raise InputError(_no_file(feedback, missing))
        self.files = {day: found[day] for day in sorted(found if days is None else days)}
        self._fingerprints = {day: _fingerprint(feedback, day) for day in self.files}

    def fingerprint(self, day: str) -> str:
        """Of the files of a day, as they were before they were read."""
        return self._fingerprints[day if self.by_file else ""]


class _Reading:
    """Reads the files and writes the parts."""

    def __init__(
        self,
        feedback: Feedback,
        warehouse: Warehouse,
        source: _Source,
        forgotten: Forgotten,
        parts: Path,
        rejected: Path,
    ) -> None:
        self._feedback, self._source, self._forgotten = feedback, source, forgotten
        self._parts, self._rejected = parts, rejected
        last = warehouse.schema_of(ACCEPTED) or warehouse.schema_of("feedback_strengths")
        self._ids = id_columns(feedback, last)
        self._criteria, self._columns = criteria_of(feedback), Columns.of_feedback(feedback)
        self._writers: dict[str, EventWriter] = {}
        self._reports: dict[str, IngestReport] = {}
        self.remarks: list[str] = []

    def run(self, report: DaysReport) -> dict[str, IngestReport]:
        """What was read, by day; under the empty name what belongs to none."""
        self._rejected.mkdir()
        (self._rejected / FOLDER_METADATA).write_text("{}", encoding="utf-8")
        with ExitStack() as written:
            for day, files in self._source.files.items():
                self._read(day, files, report, written)
        self.remarks = [column.remark for column in self._ids.values() if column.remark]
        if not self._source.by_file:
            for day in self._source.days or ():
                self._of(day, self._source.files[""])
        return dict(sorted(self._reports.items()))

    def _read(self, day: str, files: Sequence[UPath], report: DaysReport, written: ExitStack) -> None:
        counted = self._of(day, files)
        forgets, n_before = bool(len(self._forgotten.ids)), self._forgotten.n_events
        part = self._rejected / f"{day or _WHOLE_FEED}.parquet"
        with pq.ParquetWriter(part, REJECTED_SCHEMA, compression=COMPRESSION) as quarantine:
            for file in files:
                for read in read_rows(file, self._columns, self._feedback):
                    batch = self._forgotten.without(read, events_in(self._feedback)) if forgets else read
                    judged = judge(batch.rows, self._criteria)
                    quarantine_rows(quarantine, str(file), batch, judged, counted)
                    for of_day, events in self._by_day(day, judged, report):
                        self._write(of_day, events, batch, str(file), written)
                    if not day:
                        # What is rejected is a share of all rows.
                        counted.n_accepted += judged.accepted.num_rows
                    counted.n_ignored += judged.n_ignored
                    counted.n_empty += batch.n_empty
        report.reasons.update(counted.reasons)
        if forgets:
            counted.forgotten = {_EVENTS: self._forgotten.n_events - n_before}

    def _by_day(self, day: str, judged: Judgement, report: DaysReport) -> Iterator[tuple[str, Judgement]]:
        accepted = judged.accepted
        if TIMESTAMP not in accepted.schema.names:
            if not day:
                raise InputError(
                    f"{self._feedback.path} has no column {TIMESTAMP}, by which the events belong to days: "
                    "name the one that it has (RECSYS_TIMESTAMP_COLUMN), name the files of a day by {day} in "
                    "RECSYS_FEEDBACK, or leave RECSYS_FIRST_DAY out."
                )
            yield day, judged
            return
        number = _day_numbers(accepted)
        if day:
            report.n_other_days[day] += int(np.count_nonzero(number != _number(day)))
            yield day, judged
            return
        first = _number(self._feedback.first_day)
        report.n_before += int(np.count_nonzero(number < first))
        for each in np.unique(number[number >= first]):
            of_day = (date(1970, 1, 1) + timedelta(days=int(each))).isoformat()
            if self._source.days is None or of_day in self._source.days:
                yield of_day, _only(judged, number == each)

    def _write(self, day: str, events: Judgement, batch: Batch, file: str, written: ExitStack) -> None:
        if day not in self._writers:
            writer = EventWriter(self._parts / f"{day}.parquet", self._ids)
            self._writers[day] = written.enter_context(writer)
        self._writers[day].write(events, batch, file)
        # What is ignored or empty is counted once, with what was read.
        self._of(day, self._source.files[day if self._source.by_file else ""]).count(
            events._replace(n_ignored=0), Batch(batch.rows, batch.lines, batch.typed)
        )

    def _of(self, day: str, files: Sequence[UPath]) -> IngestReport:
        return self._reports.setdefault(day, IngestReport(files=[str(file) for file in files]))


def _only(judged: Judgement, of_day: NDArray[np.bool_]) -> Judgement:
    return judged._replace(accepted=judged.accepted.filter(pa.array(of_day)), places=judged.places[of_day])


def _present(warehouse: Warehouse, report: DaysReport, *, required: bool) -> dict[str, dict[str, Any]]:
    """What the parts that are there say, by day; nothing of a table not kept by days, or damaged."""
    if not warehouse.has(ACCEPTED):
        return {}
    try:
        days: dict[str, dict[str, Any]] | None = stored_metadata(warehouse.open_table(ACCEPTED)).get(_DAYS)
    except InputError as error:
        if required:
            raise InputError(f"{error} Name no day, so that all of them are ingested again.") from None
        report.remarks.append(f"all days are ingested again: {error}")
        return {}
    if days is None:
        report.remarks.append("the events were not kept by days until now, and are replaced")
    return days or {}


def _hold(warehouse: Warehouse, forgotten: Forgotten) -> bool:
    """Whether a part that is there has a row of those who are to be forgotten, or may name them."""

    def any_part(asset: str, has: Callable[[Path], bool]) -> bool:
        def look(folder: UPath, _: list[str]) -> bool:
            return any(map(has, _parts_in(folder, asset)))

        return warehouse.has(asset) and States(warehouse.root, asset).read(look)[0]

    return any_part(ACCEPTED, partial(_has, forgotten)) or any_part(REJECTED, partial(_names, forgotten))


def _has(forgotten: Forgotten, part: Path) -> bool:
    if not len(forgotten.ids):
        return False
    with pq.ParquetFile(part) as file:
        return any(forgotten.among(batch[USER]).any() for batch in file.iter_batches(columns=[USER]))


def _names(forgotten: Forgotten, part: Path) -> bool:
    if not len(forgotten.ids):
        return False
    with pq.ParquetFile(part) as file:
        contents = file.read([REJECTED_CONTENT])[REJECTED_CONTENT].to_pylist()
    return any(forgotten.told(content) != content for content in contents)


def _leave_out(
    forgotten: Forgotten, events: list[str], days: dict[str, dict[str, Any]], part: Path, to: Path
) -> bool:
    """Write a part of events without those who are to be forgotten; False where it has none of them.

    What the part says of its day, in `days`, follows.
    """
    if not _has(forgotten, part):
        return False
    left, n_before, n_other_days = IngestReport(), forgotten.n_events, 0
    with pq.ParquetFile(part) as file, ExitStack() as opened:
        writer: pq.ParquetWriter | None = None
        for batch in file.iter_batches():
            kept = batch.filter(pa.array(~forgotten.rows_of(batch, events)))
            if not kept.num_rows:
                continue
            if writer is None:
                writer = opened.enter_context(
                    pq.ParquetWriter(to, file.schema_arrow, compression=COMPRESSION)
                )
            writer.write_batch(kept)
            left.count_events(kept)
            if TIMESTAMP in kept.schema.names:
                n_other_days += int(np.count_nonzero(_day_numbers(kept) != _number(part.stem)))
    said = days[part.stem]
    already = said.get(FORGOTTEN, {}).get(_EVENTS, 0)
    days[part.stem] = {
        **said,
        "rows": left.n_accepted,
        "events": dict(left.events),
        "first_event": left.first_event.isoformat() if left.first_event else None,
        "last_event": left.last_event.isoformat() if left.last_event else None,
        "of_other_days": n_other_days,
        FORGOTTEN: {_EVENTS: already + forgotten.n_events - n_before},
    }
    return True


def _withhold(forgotten: Forgotten, part: Path, to: Path) -> bool:
    """Write a part of rejected rows without contents that may name them; False where none does."""
    if not _names(forgotten, part):
        return False
    with pq.ParquetFile(part) as file:
        table = file.read()
    contents = pa.array([forgotten.told(content) for content in table[REJECTED_CONTENT].to_pylist()])
    place = table.schema.get_field_index(REJECTED_CONTENT)
    pq.write_table(table.set_column(place, REJECTED_CONTENT, contents), to, compression=COMPRESSION)
    return True


def _parts_in(folder: UPath, asset: str) -> list[Path]:
    parts = local_path(folder / f"{asset}.parquet")
    return sorted(parts.glob("[!._]*.parquet")) if parts.is_dir() else []


def _carry(
    warehouse: Warehouse,
    asset: str,
    parts: Path,
    but_for: Collection[str],
    report: DaysReport,
    forget: Callable[[Path, Path], bool],
) -> None:
    """Take over the parts of the other days: the files themselves where they are local.

    `forget` writes a part without those who are to be forgotten, and says whether it had any.
    """

    def link(folder: UPath, _: list[str]) -> None:
        for part in _parts_in(folder, asset):
            if part.stem in but_for or forget(part, parts / part.name):
                continue
            try:
                os.link(part, parts / part.name)
            except OSError:
                shutil.copyfile(part, parts / part.name)

    if not warehouse.has(asset):
        return
    try:
        States(warehouse.root, asset).read(link)
    except InputError as error:
        # Of the events themselves `_present` has said so.
        if asset == REJECTED:
            report.remarks.append(f"the rejected rows of other days are lost: {error}")


def _as_one_table(parts: Path, feedback: Feedback) -> pa.Schema:
    """The schema that all parts have, once those whose ids are integers among texts are written anew.

    Raises:
        InputError: there are no events, or some parts have times and others do not.
    """
    schemas = {part: pq.read_schema(part) for part in sorted(parts.glob("*.parquet"))}
    if not schemas:
        raise InputError(f"{feedback.path}: no event is left in any day.")
    if len({tuple(schema.names) for schema in schemas.values()}) > 1:
        raise InputError(f"some days have a column {TIMESTAMP} and others do not.")
    first = next(iter(schemas.values())).remove_metadata()
    fields = []
    for place, of_first in enumerate(first):
        kinds = {schema.field(place).type for schema in schemas.values()}
        fields.append(of_first.with_type(pa.string()) if len(kinds) > 1 else of_first)
    schema = pa.schema(fields)
    for part, was in schemas.items():
        if was.remove_metadata() != schema:
            table = pq.read_table(part).cast(schema)
            # Not in place: it may be the very file of the state before.
            part.unlink()
            pq.write_table(table, part, compression=COMPRESSION)
    return schema


def _together(
    days: Mapping[str, Mapping[str, Any]], of_none: IngestReport | None, forgotten: Forgotten
) -> dict[str, Any]:
    """What all days say together, as `IngestReport.as_dict` does; `of_none` is what belongs to no day."""
    left_out = sum(of_day.get(FORGOTTEN, {}).get(_EVENTS, 0) for of_day in days.values())
    if of_none and of_none.forgotten:
        # One file was read again as a whole, with what the days had of it.
        left_out = of_none.forgotten[_EVENTS]
    events: Counter[str] = Counter()
    for of_day in days.values():
        events.update(of_day["events"])
    first = [of_day["first_event"] for of_day in days.values() if of_day["first_event"]]
    last = [of_day["last_event"] for of_day in days.values() if of_day["last_event"]]
    told = list(days.values())
    return {
        "files": len(of_none.files) if of_none else sum(of_day["files"] for of_day in told),
        "first_file": told[0]["first_file"],
        "last_file": told[-1]["last_file"],
        "rows": sum(of_day["rows"] for of_day in told),
        "rejected": sum(of_day["rejected"] for of_day in told) + (of_none.n_rejected if of_none else 0),
        "ignored": sum(of_day["ignored"] for of_day in told) + (of_none.n_ignored if of_none else 0),
        "events": dict(events),
        "first_event": min(first, default=None),
        "last_event": max(last, default=None),
        # How many users that were, nobody knows: a day does not keep who.
        **({FORGOTTEN: {LISTED: len(forgotten.ids), _EVENTS: left_out}} if len(forgotten.ids) else {}),
    }


def _remember(warehouse: Warehouse, report: DaysReport, source: _Source) -> None:
    """Say what was ingested from which files; last, so that what was cut short is ingested again."""
    before = _ingested(warehouse)
    fingerprints = {**before, **{day: source.fingerprint(day) for day in report.ingested}}
    rows = [(day, of_day, fingerprints.get(day, "")) for day, of_day in report.days.items()]
    table = pa.table(
        {
            "day": [day for day, _, _ in rows],
            "events": pa.array([of_day["rows"] for _, of_day, _ in rows], pa.int64()),
            "rejected": pa.array([of_day["rejected"] for _, of_day, _ in rows], pa.int64()),
            "of_other_days": pa.array([of_day["of_other_days"] for _, of_day, _ in rows], pa.int64()),
            "source": [fingerprint for _, _, fingerprint in rows],
        }
    )
    warehouse.write_tables(INGESTED, {INGESTED: table})


def _ingested(warehouse: Warehouse) -> dict[str, str]:
    """By day, the fingerprint of the files that it was ingested from; nothing where that is not known."""
    try:
        table = warehouse.read_table(INGESTED)
        return dict(zip(table["day"].to_pylist(), table["source"].to_pylist(), strict=True))
    except (InputError, KeyError):
        return {}


def _files_by_day(feedback: Feedback) -> dict[str, list[UPath]]:
    found: dict[str, list[UPath]] = {}
    for file in files_behind(feedback.path)[0]:
        day = day_in(feedback.path, file)
        if day >= feedback.first_day:
            found.setdefault(day, []).append(file)
    return found


def _fingerprint(feedback: Feedback, day: str) -> str:
    return seen([feedback.path.replace(DAY, day)]).fingerprint


def _no_file(feedback: Feedback, days: Sequence[str]) -> str:
    shown = ", ".join(days[:_SHOWN_DAYS]) + (
        f" and {len(days) - _SHOWN_DAYS:,} more" if days[_SHOWN_DAYS:] else ""
    )
    return (
        f"no file for {shown}: {feedback.path.replace(DAY, days[0])} does not exist. Bring it (a day without "
        "events has a file with nothing but its header), or let the feed begin later (RECSYS_FIRST_DAY)."
    )


def _range(first: str, last: str) -> list[str]:
    begin, end = date.fromisoformat(first), date.fromisoformat(last)
    return [(begin + timedelta(days=n)).isoformat() for n in range((end - begin).days + 1)]


def _day_numbers(events: pa.RecordBatch) -> NDArray[np.int64]:
    """(n,) days since 1970."""
    numbers: NDArray[np.int64] = events[TIMESTAMP].cast(pa.int64()).to_numpy() // _MICROSECONDS_PER_DAY
    return numbers


def _number(day: str) -> int:
    return (date.fromisoformat(day) - date(1970, 1, 1)).days
