"""The files in which the shop says what may be recommended, read as the feedback is."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from upath import UPath

from recsys_pipeline.core.catalogue import Entries, Listed
from recsys_pipeline.core.columns import AVAILABLE, CATEGORY, ITEM
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.ids import as_mask, is_blank, is_integer, shown_ids
from recsys_pipeline.core.indexing import index_ids
from recsys_pipeline.storage.feedback import Feedback, FileFormat
from recsys_pipeline.storage.feeds.files import files_behind
from recsys_pipeline.storage.feeds.read import read_rows
from recsys_pipeline.storage.feeds.rows import Columns

_AVAILABLE = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_MEND = "Name the column so, or set `delimiter` of the `feedback` resource."


class _Rows(NamedTuple):
    """Rows of a file whose ids the model could know.

    Attributes:
        file: for messages.
        columns: by our names; ids as the model has them.
        lines: (n,) where each stands.
        n_other: rows beside these, whose ids the model cannot know.
    """

    file: UPath
    columns: Mapping[str, pa.Array]
    lines: NDArray[np.int64]
    n_other: int


def read_catalogue(path: str, feedback: Feedback, ids: pa.DataType) -> Entries:
    """The items of the shop; columns ProductCode and, optionally, available and category.

    Without `available` every item is. An empty category is none.

    Args:
        path: file, folder or glob, CSV or Parquet by the ending.
        feedback: delimiter, encoding and blank ids.
        ids: type of the model's ids.

    Raises:
        InputError: a file cannot be read, or a row has a blank id, an `available` that is none of true,
            false, 1, 0, yes and no, or says something else than an earlier row of the same item.
    """
    rows: list[_Rows] = []
    available: list[NDArray[np.bool_]] = []
    categories: list[pa.Array] = []
    optional = {AVAILABLE: AVAILABLE, CATEGORY: CATEGORY}
    for some in _read(path, feedback, ids, optional, "RECSYS_CATALOGUE, or `path` of catalogue"):
        rows.append(some)
        n = len(some.lines)
        available.append(_available(some) if AVAILABLE in some.columns else np.ones(n, dtype=bool))
        categories.append(
            _category(some.columns[CATEGORY], feedback)
            if CATEGORY in some.columns
            else pa.nulls(n, pa.string())
        )
    every_id = pa.chunked_array([some.columns[ITEM] for some in rows], ids)
    n_other = sum(some.n_other for some in rows)
    if not len(every_id) and not n_other:
        raise InputError(f"{path} has no rows, only a header. Was the export cut short?")
    distinct, index = index_ids(every_id)
    is_available = np.concatenate(available)
    category = pa.chunked_array(categories, pa.string()).combine_chunks()
    first = _first_of_each(rows, index, is_available, category)
    absent = [name for name in optional if not any(name in some.columns for some in rows)]
    return Entries(Listed(distinct, n_other), is_available[first], category.take(pa.array(first)), absent)


def read_id_list(path: str, feedback: Feedback, ids: pa.DataType, setting: str) -> Listed:
    """The items of a file with a column ProductCode.

    Args:
        path: as in `read_catalogue`.
        feedback: delimiter, encoding and blank ids.
        ids: type of the model's ids.
        setting: what names the file, for messages.

    Raises:
        InputError: a file cannot be read, or an id is blank.
    """
    rows = list(_read(path, feedback, ids, {}, setting))
    distinct = pa.chunked_array([some.columns[ITEM] for some in rows], ids).unique()
    return Listed(distinct, sum(some.n_other for some in rows))


def _read(
    path: str, feedback: Feedback, ids: pa.DataType, optional: Mapping[str, str], setting: str
) -> Iterator[_Rows]:
    feedback = feedback.model_copy(update={"path": path, "format": FileFormat.auto})
    columns = Columns({ITEM: ITEM}, optional, _MEND)
    for file in files_behind(path, setting)[0]:
        for batch in read_rows(file, columns, feedback):
            if batch.unparsed:
                line, reason, _ = batch.unparsed[0]
                raise InputError(f"{file}: line {line:,} is no row: {reason}. Mend or remove it.")
            found = dict(zip(batch.rows.schema.names, batch.rows.columns, strict=True))
            blank = np.flatnonzero(is_blank(found[ITEM], feedback.blank_ids))
            if len(blank):
                raise InputError(
                    f"{file}: line {batch.lines[blank[0]]:,} has a blank {ITEM}. Mend or remove it."
                )
            known = is_integer(found[ITEM]) if ids == pa.int64() else np.ones(len(found[ITEM]), dtype=bool)
            kept = {name: values.filter(pa.array(known)) for name, values in found.items()}
            kept[ITEM] = kept[ITEM].cast(ids)
            yield _Rows(file, kept, batch.lines[known], int(np.count_nonzero(~known)))


def _available(rows: _Rows) -> NDArray[np.bool_]:
    encoded = rows.columns[AVAILABLE].cast(pa.string()).dictionary_encode()
    meant = [_AVAILABLE.get((text or "").strip().lower()) for text in encoded.dictionary.to_pylist()]
    available = pa.array(meant, pa.bool_()).take(encoded.indices)
    unclear = np.flatnonzero(as_mask(pc.is_null(available)))
    if len(unclear):
        shown = shown_ids(rows.columns[AVAILABLE], unclear[:1])
        raise InputError(
            f"{rows.file}: line {rows.lines[unclear[0]]:,} has {shown} as `{AVAILABLE}`; write true or false "
            "(1 or 0, yes or no)."
        )
    return as_mask(available)


def _category(values: pa.Array, feedback: Feedback) -> pa.Array:
    text = values.cast(pa.string())
    return pc.if_else(pa.array(is_blank(text, feedback.blank_ids)), pa.scalar(None, pa.string()), text)


def _first_of_each(
    rows: Sequence[_Rows], index: NDArray[np.int32], available: NDArray[np.bool_], category: pa.Array
) -> NDArray[np.int64]:
    """The first row of each item.

    Raises:
        InputError: a later one says something else.
    """
    order = np.argsort(index, kind="stable")
    begins = np.flatnonzero(np.diff(index[order], prepend=-1))
    first = order[begins]
    of_row = first[index]
    code = pc.fill_null(category.dictionary_encode().indices, -1).to_numpy(zero_copy_only=False)
    differing = np.flatnonzero((available != available[of_row]) | (code != code[of_row]))
    if len(differing):
        later = int(differing[0])
        (file, line), (first_file, first_line) = (_place(rows, row) for row in (later, int(of_row[later])))
        item = shown_ids(pa.chunked_array([some.columns[ITEM] for some in rows]), differing[:1])
        raise InputError(
            f"{file}: line {line:,} says something else of {ITEM} {item} than line {first_line:,} of "
            f"{first_file}. Keep one of them."
        )
    return first


def _place(rows: Sequence[_Rows], row: int) -> tuple[UPath, int]:
    """File and line of a row of all that were read."""
    for some in rows:
        if row < len(some.lines):
            return some.file, int(some.lines[row])
        row -= len(some.lines)
    raise IndexError(row)
