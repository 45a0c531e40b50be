"""Rows of a feed under our column names, whatever its files look like."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_pipeline.core.columns import EVENT, ITEM, TIMESTAMP, USER
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.storage.feedback import Feedback

_SHOWN_COLUMNS = 20
_SHOWN_LETTERS = 200


@dataclass
class Batch:
    """Some rows of a file.

    Attributes:
        rows: our columns.
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


class Columns:
    """Which columns of a file to read, and our names of them."""

    def __init__(self, needed: Mapping[str, str], optional: Mapping[str, str], mend: str) -> None:
        """Our names by the file's; `mend` is what to do where a needed column is missing."""
        self._needed, self._optional, self._mend = needed, optional, mend

    @classmethod
    def of_feedback(cls, feedback: Feedback, *, ids_alone: bool = False) -> Self:
        """`ids_alone`: of users and items, without events and times."""
        needed = {feedback.user_column: USER, feedback.item_column: ITEM}
        if not ids_alone:
            needed[feedback.event_column] = EVENT
        if len(needed) < (2 if ids_alone else 3):
            raise InputError("user_column, item_column and event_column must be three different columns.")
        optional = {}
        if feedback.timestamp_column and not ids_alone:
            needed[feedback.timestamp_column] = TIMESTAMP
        elif not ids_alone:
            optional[TIMESTAMP] = TIMESTAMP
        mend = (
            "Name the columns in the `feedback` resource (user_column, item_column, event_column, "
            "timestamp_column), or set `delimiter`."
        )
        return cls(needed, optional, mend)

    def among(self, found: list[str], file: object) -> Mapping[str, str]:
        """Our name of each column to read, by the file's name of it.

        Raises:
            InputError: the file lacks a column, or has one twice.
        """
        columns = {**self._needed, **{name: ours for name, ours in self._optional.items() if name in found}}
        if missing := [name for name in columns if name not in found]:
            there = ", ".join(repr(name)[:_SHOWN_LETTERS] for name in found[:_SHOWN_COLUMNS])
            raise InputError(
                f"{file}: no column {', '.join(map(repr, missing))}; it has {there}. {self._mend}"
            )
        if repeated := [name for name in columns if found.count(name) > 1]:
            raise InputError(f"{file}: the column {repeated[0]!r} stands {found.count(repeated[0])} times.")
        return columns


def first_line(error: Exception) -> str:
    """What an error of a library says, short enough for a message."""
    return str(error).splitlines()[0][:_SHOWN_LETTERS] if str(error) else type(error).__name__


Batches = Iterator[Batch]
