"""Users who are to be forgotten: whose they are, and which rows of a feed are theirs.

Ids are compared as the texts that they are in files. A feed keeps an id as an integer only where its text is
that of the integer: 0073 names nobody where the ids are integers, and somebody else than 73 where they are
text.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from upath import UPath

from recsys_pipeline.core.columns import EVENT, USER
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.ids import as_mask, is_blank
from recsys_pipeline.core.metadata import FORGOTTEN
from recsys_pipeline.storage.feedback import Feedback, FileFormat
from recsys_pipeline.storage.feeds.files import files_behind
from recsys_pipeline.storage.feeds.read import read_rows
from recsys_pipeline.storage.feeds.rows import Batch, Columns
from recsys_pipeline.storage.models import users_in
from recsys_pipeline.storage.releases import FOLDER, FORMER_FOLDER, ReleaseFolder, is_version, read_pointer

SETTING = "RECSYS_FORGET_USERS, or `forget_users` of the `feedback` resource"
LISTED = "listed"
WITHHELD = "withheld: it may name a user who is to be forgotten"
# Between the values of a line that is no row.
_SEPARATORS = r"[\s\"',;|]"


class Forgotten:
    """Users who are to be forgotten, and what a feed has of them.

    Attributes:
        ids: of them.
        n_events: their rows that were met so far.
    """

    def __init__(self, ids: pa.StringArray, delimiter: str = ",") -> None:
        """Of distinct ids; `delimiter` is that of the feed."""
        self.ids, self._delimiter = ids, delimiter
        self._texts = frozenset(ids.to_pylist())
        self._split = re.compile(f"{_SEPARATORS}|{re.escape(delimiter)}")
        # Such an id would be cut where a line is.
        self._odd = [text for text in self._texts if self._split.search(text)]
        self._met: set[str] = set()
        self.n_events = 0

    def among(self, users: pa.Array) -> NDArray[np.bool_]:
        """(n,) whose id is one of them, white space around it aside."""
        if not len(self.ids):
            return np.zeros(len(users), dtype=bool)
        texts = users.cast(pa.string())
        found = pc.or_(
            pc.is_in(texts, value_set=self.ids),
            pc.is_in(pc.utf8_trim_whitespace(texts), value_set=self.ids),
        )
        return as_mask(found)

    def rows_of(self, rows: pa.RecordBatch, events: list[str]) -> NDArray[np.bool_]:
        """(n,) which rows are theirs; `events` are those that a feed may have.

        An id in place of an event is one of a row that has slipped.
        """
        theirs = self.among(rows[USER])
        slipped = self.among(rows[EVENT]) & ~as_mask(pc.is_in(rows[EVENT], pa.array(events, pa.string())))
        if theirs.any():
            texts = pc.utf8_trim_whitespace(rows[USER].cast(pa.string()).filter(pa.array(theirs)))
            self._met.update(texts.unique().to_pylist())
        self.n_events += int(np.count_nonzero(theirs | slipped))
        mask: NDArray[np.bool_] = theirs | slipped
        return mask

    def without(self, batch: Batch, events: list[str]) -> Batch:
        """The batch without their rows; `events` as in `rows_of`."""
        kept = ~self.rows_of(batch.rows, events)
        return replace(
            batch,
            rows=batch.rows if kept.all() else batch.rows.filter(pa.array(kept)),
            lines=batch.lines[kept],
            unparsed=[(line, reason, self.told(content)) for line, reason, content in batch.unparsed],
        )

    def anew(self) -> "Forgotten":
        """The same users, of whom nothing was met."""
        return Forgotten(self.ids, self._delimiter)

    def taken(self) -> dict[str, Any]:
        """What was met since this was asked for the last time, for `add`."""
        met = {"met": sorted(self._met), "events": self.n_events}
        self._met, self.n_events = set(), 0
        return met

    def add(self, taken: Mapping[str, Any]) -> None:
        """Count what another process has met."""
        self._met.update(taken["met"])
        self.n_events += taken["events"]

    def told(self, line: str) -> str:
        """What may be kept of a line that is no row."""
        if not self._texts:
            return line
        may_name = not self._texts.isdisjoint(self._split.split(line)) or any(
            odd in line for odd in self._odd
        )
        return WITHHELD if may_name else line

    def as_dict(self) -> dict[str, int]:
        """What was left out of a feed, and how many of them it does not have."""
        return {
            LISTED: len(self.ids),
            "users": len(self._met),
            "events": self.n_events,
            "not in the feed": len(self.ids) - len(self._met),
        }


def read_forgotten(feedback: Feedback) -> Forgotten:
    """The users of the file that `feedback` names; nobody where it names none.

    Raises:
        InputError: the file is missing, cannot be read or names nobody, or an id is blank.
    """
    if not feedback.forget_users:
        return Forgotten(pa.array([], pa.string()))
    read = feedback.model_copy(update={"path": feedback.forget_users, "format": FileFormat.auto})
    columns = Columns({USER: USER}, {}, "Name the column so, or set `delimiter` of the `feedback` resource.")
    found: list[pa.Array] = []
    for file in files_behind(feedback.forget_users, SETTING)[0]:
        for batch in read_rows(file, columns, read):
            # No content is shown: a log lives longer than the file.
            if batch.unparsed:
                line, reason, _ = batch.unparsed[0]
                raise InputError(f"{file}: line {line:,} is no row: {reason}. Mend or remove it.")
            blank = np.flatnonzero(is_blank(batch.rows[USER], feedback.blank_ids))
            if len(blank):
                raise InputError(
                    f"{file}: line {batch.lines[blank[0]]:,} has a blank {USER}. Mend or remove it."
                )
            found.append(pc.utf8_trim_whitespace(batch.rows[USER].cast(pa.string())))
    ids = pa.chunked_array(found, pa.string()).unique()
    if not len(ids):
        raise InputError(
            f"{feedback.forget_users} names nobody, only a header. Was the export cut short? To forget "
            f"nobody, leave {SETTING} empty."
        )
    return Forgotten(ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids, feedback.delimiter)


def require_no_fewer(forgotten: Forgotten, feedback: Feedback, last: Mapping[str, Any]) -> None:
    """Refuse to let users back in whom the last run has left out, unless that is meant.

    Args:
        forgotten: whom this run leaves out.
        feedback: where that comes from.
        last: the facts of the feed of the last run; empty where there are none.

    Raises:
        InputError: they are fewer.
    """
    before = (last.get(FORGOTTEN) or {}).get(LISTED, 0)
    if len(forgotten.ids) >= before or feedback.forget_fewer:
        return
    file = feedback.forget_users or f"{SETTING}, which is not set,"
    raise InputError(
        f"{file} names {len(forgotten.ids):,} users to be forgotten, {before:,} in the last run: the others "
        "would come back. Mend the file, or set `forget_fewer` of `feedback` to true for one run if that is "
        "meant."
    )


def releases_that_hold(warehouse: UPath, forgotten: Forgotten) -> list[str]:
    """The releases that are kept and have one of these users, oldest first.

    Where the pointer is damaged, all releases that are there count as kept, as they do for who publishes.
    """
    store = next((warehouse / name for name in (FOLDER, FORMER_FOLDER) if (warehouse / name).exists()), None)
    if store is None or not len(forgotten.ids):
        return []
    try:
        kept = read_pointer(warehouse).published
    except InputError:
        kept = []
    kept = kept or sorted(path.name for path in store.iterdir() if is_version(path.name))
    return [name for name in kept if holds(ReleaseFolder(store / name, None), forgotten)]


def holds(release: ReleaseFolder, forgotten: Forgotten) -> bool:
    """Whether a release has one of these users; one that cannot be read counts as if it had."""
    try:
        return bool(forgotten.among(users_in(release.path)).any())
    except (InputError, FileNotFoundError):
        return True
