"""Held-out interactions that a file names."""

import numpy as np
import pyarrow as pa

from recsys_pipeline.core.columns import ITEM, USER
from recsys_pipeline.core.errors import InputError
from recsys_pipeline.core.ids import is_blank, is_integer
from recsys_pipeline.storage.feedback import Feedback, FileFormat
from recsys_pipeline.storage.feeds.files import files_behind
from recsys_pipeline.storage.feeds.read import read_rows
from recsys_pipeline.storage.feeds.rows import Columns
from recsys_pipeline.storage.forgetting import read_forgotten


def read_held_out(path: str, feedback: Feedback, users: pa.DataType, items: pa.DataType) -> pa.Table:
    """The distinct interactions of a file: columns UserID and ProductCode, in the order of the file.

    Without those of users who are to be forgotten.

    Args:
        path: CSV or Parquet, by its ending, with the columns of the feedback.
        feedback: names of the columns, delimiter, encoding.
        users: type of the ids of users.
        items: type of the ids of items.

    Raises:
        InputError: the file cannot be read, or an id is blank or not of its type.
    """
    feedback = feedback.model_copy(update={"path": path, "format": FileFormat.auto})
    columns = Columns.of_feedback(feedback, ids_alone=True)
    batches: list[pa.RecordBatch] = []
    for file in files_behind(path)[0]:
        for batch in read_rows(file, columns, feedback):
            if batch.unparsed:
                line, reason, _ = batch.unparsed[0]
                raise InputError(f"{file}: line {line:,} is no row: {reason}. Mend or remove it.")
            rows = batch.rows
            for name, wanted in ((USER, users), (ITEM, items)):
                blank = np.flatnonzero(is_blank(rows[name], feedback.blank_ids))
                if len(blank):
                    raise InputError(f"{file}: line {batch.lines[blank[0]]:,} has a blank {name}. Remove it.")
                if wanted == pa.int64() and not (integers := is_integer(rows[name])).all():
                    odd = int(np.flatnonzero(~integers)[0])
                    raise InputError(
                        f"{file}: the {name} ids are integers in the feedback, and line "
                        f"{batch.lines[odd]:,} has {rows[name][odd].as_py()!r}. Mend or remove it."
                    )
                rows = rows.set_column(rows.schema.get_field_index(name), name, rows[name].cast(wanted))
            batches.append(rows.select([USER, ITEM]))
    table = pa.Table.from_batches(batches)
    table = table.filter(pa.array(~read_forgotten(feedback).among(table[USER])))
    if not table.num_rows:
        raise InputError(f"{path} has no rows")
    return table.group_by([USER, ITEM], use_threads=False).aggregate([])
