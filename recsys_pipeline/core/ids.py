"""Raw ids: which are none, and of which type a column of them is."""

from collections.abc import Collection
from enum import Enum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_pipeline.core.errors import InputError

# An integer as Python writes it; one of more than 64 bits matches too.
_INTEGER = r"^(0|-?[1-9][0-9]*)$"
_SHOWN_IDS = 5
_SHOWN_LETTERS = 40


class IdType(Enum):
    """Of which type a column of ids is: as it was in the last run, integers, or strings."""

    auto = "auto"
    integer = "integer"
    string = "string"


def is_blank(ids: pa.Array, blank_ids: Collection[str]) -> NDArray[np.bool_]:
    """(n,) whether an id is missing, white space, or one of `blank_ids` in any case."""
    missing = as_mask(pc.is_null(ids))
    if pa.types.is_integer(ids.type):
        return missing
    # Folded once a distinct id: far fewer than rows.
    encoded = ids.dictionary_encode()
    lower = pc.utf8_lower(pc.utf8_trim_whitespace(encoded.dictionary))
    blank = pc.is_in(lower, pa.array(["", *(word.lower() for word in blank_ids)], pa.string()))
    return missing | as_mask(blank.take(encoded.indices))


def is_integer(ids: pa.Array) -> NDArray[np.bool_]:
    """(n,) whether an id is a 64-bit integer as Python writes it.

    "007" or "+7" is none: it would not come back as it went in.
    """
    if pa.types.is_integer(ids.type):
        return as_mask(pc.is_valid(ids))
    found = as_mask(pc.match_substring_regex(ids, _INTEGER))
    for place in np.flatnonzero(found & (as_mask(pc.greater(pc.utf8_length(ids), 18)))):
        found[place] = -(2**63) <= int(ids[place].as_py()) < 2**63
    return found


def as_integers(ids: pa.StringArray) -> pa.Int64Array | None:
    """The ids as 64-bit integers, if each is one as Python writes it; else None."""
    try:
        integers = pc.cast(ids, pa.int64())
    except pa.ArrowInvalid:
        return None
    return integers if pc.cast(integers, pa.string()).equals(ids) else None


def shown_ids(ids: pa.Array, places: NDArray[np.signedinteger]) -> str:
    """The first few of these ids for a message, each cut to what a person can read."""
    texts = [repr(ids[place].as_py())[:_SHOWN_LETTERS] for place in places[:_SHOWN_IDS].tolist()]
    return ", ".join(texts) + (", ..." if len(places) > _SHOWN_IDS else "")


def as_mask(values: pa.BooleanArray) -> NDArray[np.bool_]:
    """(n,) the values; false where there is none."""
    mask: NDArray[np.bool_] = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return mask


class IdColumn:
    """Decides the type of an id column, batch after batch.

    With `auto` a column is of the type that it had in the last run. In a first run, ids from a source without
    types are integers until the first one that is none, and strings from there on.

    Attributes:
        type: of the ids so far; None before the first.
        remark: what a person should know of the decision; empty for nothing.
    """

    def __init__(self, name: str, setting: str, wanted: IdType, last: pa.DataType | None) -> None:
        """`setting` is the name of the field that pins the type, `last` the type of the last run."""
        self.type: pa.DataType | None = None
        self.remark = ""
        self._name, self._setting, self._wanted = name, setting, wanted
        self._last = last if wanted is IdType.auto else None
        if wanted is not IdType.auto:
            self.type = pa.int64() if wanted is IdType.integer else pa.string()
        elif last is not None and pa.types.is_string(last):
            self.type = pa.string()

    def convert(self, ids: pa.Array, lines: NDArray[np.int64], file: str, *, typed: bool) -> pa.Array:
        """The ids in the type of the column; where that is pinned to integers, all are.

        Args:
            ids: (n,) integers or strings, at least one.
            lines: (n,) where each stands in the file.
            file: for messages.
            typed: whether the source has types; if so they are taken at their word.

        Raises:
            InputError: the type is another one than in the last run.
        """
        if self._wanted is IdType.auto:
            found = self._found(ids, typed)
            if self._last is not None and found != self._last:
                raise self._changed(ids, lines, file, found)
            if found == pa.string() and self.type != pa.string():
                self._remark_on_text(ids, lines, file)
            self.type = found
        return ids.cast(self.type)

    def _found(self, ids: pa.Array, typed: bool) -> pa.DataType:
        if typed and self._last is not None:
            return ids.type
        if self.type == pa.string() or (typed and ids.type == pa.string()):
            return pa.string()
        return pa.int64() if typed or as_integers(ids) is not None else pa.string()

    def _changed(self, ids: pa.Array, lines: NDArray[np.int64], file: str, found: pa.DataType) -> InputError:
        offending = np.flatnonzero(~is_integer(ids) | (found != pa.string()))
        if not len(offending):  # strings that read as integers, from a source that says strings
            offending = np.arange(len(ids))
        told = {str(pa.int64()): "integers", str(pa.string()): "text"}
        return InputError(
            f"{file}: the {self._name} ids were {told[str(self._last)]} in the last run and are "
            f"{told[str(found)]} now: {shown_ids(ids, offending)} (the first in line "
            f"{lines[offending[0]]:,}). Whoever asks the model by id would find nobody. To reject such rows "
            f"set {self._setting} of `feedback` (RECSYS_{self._setting.upper()}) to `integer`, to keep all "
            "ids as text set it to `string`; another shop's feed needs a warehouse of its own "
            "(RECSYS_WAREHOUSE)."
        )

    def _remark_on_text(self, ids: pa.Array, lines: NDArray[np.int64], file: str) -> None:
        """Say so when oddities such as ' 1 ' or 1e5 make text of integers; codes such as 007 are none."""
        integers = is_integer(ids)
        digits = as_mask(pc.match_substring_regex(ids.cast(pa.string()), "^[0-9]+$"))
        odd = np.flatnonzero(~integers & ~digits)
        if len(odd) and (integers.any() or self.type is not None):
            self.remark = (
                f"the {self._name} ids are kept as text, although most may be integers: "
                f"{shown_ids(ids, odd)} (the first in line {lines[odd[0]]:,} of {file}). Set {self._setting} "
                "to `integer` to reject such rows, or to `string` if text is meant."
            )
